-- Set fields of a conversation, if it exists.
-- KEYS  1 conversation  2 events (also the channel's name)  3 usage  4 expiries  5 conversations
-- ARGV  1 conversation id  2 to 7 limits of the owner (shared/usage.lua)
--       8 … field, value, field, value, …
-- Result  "changed" | "unknown" conversation | the limit that does not allow the new values
-- Idempotent: a repeat sets the same values; only values that differ are announced.

if redis.call('EXISTS', KEYS[1]) == 0 then return 'unknown' end
local differs, growth = false, 0
for i = 8, #ARGV, 2 do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  differs = differs or value ~= ARGV[i + 1]
  growth = growth + #ARGV[i + 1] - (value and #value or 0)
end
if growth > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local limit = find_limit(read_limits(KEYS[3], KEYS[4], KEYS[5], 2), ARGV[1], growth, now)
  if limit then return limit end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 8))
grow(KEYS[3], KEYS[4], ARGV[1], growth)
if differs then announce(KEYS[2], 'conversation ' .. ARGV[1] .. ' changed') end
return 'changed'
