-- Claim the only export of an owner.
-- KEYS  1 export
-- ARGV  1 claim: an id of this export  2 lifetime in ms
-- Result  1 claimed | 0 another export holds it
-- Idempotent: a repeat finds its own claim. While Redis rejects writes, the result is 1 without a
--       claim.

-- A claim that lives longer than its lifetime was written before the clock was set back.
local held, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
if held and held ~= ARGV[1] and left >= 0 and left <= tonumber(ARGV[2]) then return 0 end
redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
