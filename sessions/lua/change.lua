-- Set fields of a conversation, if it exists.
-- KEYS  1 conversation  2 events (also the channel's name)
-- ARGV  1 conversation id  2 … field, value, field, value, …
-- Result  1 set | 0 no such conversation
-- Idempotent: a repeat sets the same values; only values that differ are announced.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local differs = false
for i = 2, #ARGV, 2 do
  differs = differs or redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1]
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if differs then announce(KEYS[2], 'conversation ' .. ARGV[1] .. ' changed') end
return 1
