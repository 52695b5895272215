-- Take a running turn whose worker let its lease run out.
-- KEYS  1 turn
-- ARGV  1 attempt (random)  2 lease in ms
-- Result  the new fence | 0 its worker still holds it | -1 it does not run
-- Idempotent: the turn remembers the attempt that took it, and that attempt sent again gets its fence again.

local turn = redis.call('HMGET', KEYS[1], 'state', 'lease', 'attempt', 'fence')
if turn[1] ~= 'running' then return -1 end
if turn[3] == ARGV[1] then return tonumber(turn[4]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(turn[2]) > now then return 0 end
redis.call('HSET', KEYS[1], 'attempt', ARGV[1], 'lease', now + ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'fence', 1)
