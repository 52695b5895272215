-- Show the branch through a message, down to its newest end.
-- KEYS  1 conversation  2 messages  3 events (also the channel's name)
-- ARGV  1 message id  2 conversation id
-- Result  1 shown | 0 no such message | -1 an answer is being generated
-- Idempotent: a repeat shows the same branch; only another branch is announced.

local MAX_STEPS = 100000  -- parents that form a circle must not block Redis

local conversation = redis.call('HMGET', KEYS[1], 'created', 'running', 'head')
if not conversation[1] or redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
if conversation[2] then return -1 end
local head = ARGV[1]
for _ = 1, MAX_STEPS do
  local children = redis.call('HGET', KEYS[2], '>' .. head)
  if not children then break end
  head = string.match(children, '%S+$')
end
redis.call('HSET', KEYS[1], 'head', head)
redis.call('HDEL', KEYS[1], 'open')
if head ~= conversation[3] then announce(KEYS[3], 'conversation ' .. ARGV[2] .. ' changed') end
return 1
