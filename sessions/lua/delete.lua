-- Delete a conversation, unless one of its turns runs, and unlink a chunk of its turns and logs.
-- KEYS  1 conversation  2 messages  3 conversations  4 turns  5 turns to unlink
--       6 events (also the channel's name)  7 usage  8 expiries
-- ARGV  1 conversation id  2 creation time of the conversation  3 maximum of turns to unlink
--       4 prefix of turn keys  5, 6 prefixes of log keys
-- Result  id of the running turn that prevents the deletion
--         | number of turns left to unlink; with 0 the deletion is complete
-- Idempotent: only the conversation of that creation time is deleted, so that a repeat spares a new
--       conversation with the same id; KEYS 5 belongs to the deleted conversation alone.

local conversation = redis.call('HMGET', KEYS[1], 'created', 'running')
redis.call('ZCARD', KEYS[3])  -- a key of the wrong type is an error before anything is written
if conversation[1] and (tonumber(conversation[1]) or 0) == tonumber(ARGV[2]) then
  local turn = conversation[2]
  if turn and redis.pcall('HGET', ARGV[4] .. turn, 'state') == 'running' then return turn end
  if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('RENAME', KEYS[4], KEYS[5]) end
  redis.call('UNLINK', KEYS[1], KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[1])
  forget(KEYS[7], KEYS[8], ARGV[1])
  announce(KEYS[6], 'conversation ' .. ARGV[1] .. ' deleted')
end

for _, turn in ipairs(redis.call('SPOP', KEYS[5], ARGV[3])) do
  redis.call('UNLINK', ARGV[4] .. turn, ARGV[5] .. turn, ARGV[6] .. turn)
end
return redis.call('SCARD', KEYS[5])
