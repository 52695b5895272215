-- Create a conversation and make it the session's current one.
-- KEYS  1 conversation  2 conversations  3 current  4 events (also the channel's name)
-- ARGV  1 conversation id  2 lifetime in s  3 … field, value, field, value, …
-- Result  1
-- Idempotent: a repeat sets the same fields, keeps the time of creation and announces nothing.

redis.call('ZCARD', KEYS[2])  -- a key of the wrong type is an error before anything is written
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_new = redis.call('HSETNX', KEYS[1], 'created', now) == 1
if is_new then redis.call('HSET', KEYS[1], 'updated', now) end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SET', KEYS[3], ARGV[1])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
if is_new then announce(KEYS[4], 'conversation ' .. ARGV[1] .. ' created') end
return 1
