-- List turns in the index of running turns, by the time at which their leases expire.
-- KEYS  1 running
-- ARGV  1 lease in ms (0: expired already)  2 … members
-- Result  the time at which the leases expire, in ms, by the clock of the index's node
-- Idempotent: a repeat sets the same members, at most to a later time.

local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], expires, ARGV[i]) end
return expires
