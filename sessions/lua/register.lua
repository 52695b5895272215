-- List turns in the index of running turns, by the time at which their leases expire.
-- KEYS  1 running  2 … sets of turns that limits count, whose lifetime is renewed
-- ARGV  1 lease in ms (0: expired already)  2 lifetime of the sets in s  3 … members
-- Result  the time at which the leases expire, in ms, by the clock of the index's node
-- Idempotent: a repeat sets the same members, at most to a later time.

local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
redis.call('ZREM', KEYS[1], '')  -- needs no memory, so that the next write may while it is full
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], expires, ARGV[i]) end
for i = 2, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return expires
