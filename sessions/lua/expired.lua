-- Find members of the index of running turns whose lease has expired, the oldest first, and those
-- whose lease ends later than any can.
-- KEYS  1 running
-- ARGV  1 maximum of members
-- Result  members
-- Changes nothing.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local after = string.format('(%.0f', now + MAX_LEASE_MS)
local others = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'LIMIT', 0, ARGV[1] - #found)
for _, member in ipairs(others) do found[#found + 1] = member end
return found
