-- Release the lease of a turn, so that another worker may take the turn over immediately.
-- KEYS  1 turn
-- ARGV  1 fence
-- Result  1 released | -1 another worker holds the turn, or it does not run
-- Idempotent: a repeat releases the same lease; after a takeover the fence rejects it.

local turn = redis.call('HMGET', KEYS[1], 'fence', 'state')
if turn[1] ~= ARGV[1] or turn[2] ~= 'running' then return -1 end
allow_full_memory(KEYS[1])
redis.call('HSET', KEYS[1], 'lease', 0)
return 1
