-- Create a conversation and make it the session's current one.
-- KEYS  1 conversation  2 conversations  3 current  4 events (also the channel's name)  5 usage
--       6 expiries
-- ARGV  1 conversation id  2 lifetime in s  3 to 8 limits of the owner
--       (shared/usage.lua)  9 … field, value, field, value, …
-- Result  "created" | the limit that does not allow another conversation
-- Idempotent: a repeat sets the same fields, keeps the time of creation and announces nothing.

redis.call('ZCARD', KEYS[2])  -- a key of the wrong type is an error before anything is written
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_new = redis.call('EXISTS', KEYS[1]) == 0
if is_new then
  local bytes = CONVERSATION_BYTES
  for i = 9, #ARGV do bytes = bytes + #ARGV[i] end
  local limit = find_limit(read_limits(KEYS[5], KEYS[6], KEYS[2], 3), ARGV[1], bytes, now)
  if limit then return limit end
  redis.call('HSET', KEYS[1], 'created', now, 'updated', now)
  set_size(KEYS[5], KEYS[6], ARGV[1], bytes, now + ARGV[2] * 1000)
end
for i = 9, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SET', KEYS[3], ARGV[1])
for _, i in ipairs({1, 2, 3, 5, 6}) do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
if is_new then announce(KEYS[4], 'conversation ' .. ARGV[1] .. ' created') end
return 'created'
