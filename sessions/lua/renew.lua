-- Hold on to a running turn for another lease.
-- KEYS  1 turn
-- ARGV  1 fence  2 lease in ms
-- Result  1 done | 2 done, and the turn should stop | -1 another worker's turn, or ended
-- Idempotent: a lease renewed twice is renewed.

local turn = redis.call('HMGET', KEYS[1], 'fence', 'state', 'stop')
if turn[1] ~= ARGV[1] or turn[2] ~= 'running' then return -1 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'lease', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
return turn[3] and 2 or 1
