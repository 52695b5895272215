-- Drop a turn that cannot be read, and free its conversation for the next question.
-- KEYS  1 turn  2 request  3 log  4 log of version 0.1
-- ARGV  1 turn id  2 conversation id ("": the one that the turn names, if it can be read)
--       3 prefix of conversation keys  4 lifetime of the logs in s, for the operator
-- Result  1
-- Idempotent: a repeat finds nothing to drop.

local conversation = ARGV[2]
if conversation == '' then conversation = redis.pcall('HGET', KEYS[1], 'conversation') end
if type(conversation) == 'string' then
  local key = ARGV[3] .. conversation
  if redis.pcall('HGET', key, 'running') == ARGV[1] then redis.call('HDEL', key, 'running') end
end
redis.call('UNLINK', KEYS[1], KEYS[2])
for i = 3, 4 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
return 1
