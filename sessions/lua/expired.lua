-- Find members of the index of running turns whose lease has expired, the oldest first.
-- KEYS  1 running
-- ARGV  1 maximum of members
-- Result  members
-- Changes nothing.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
