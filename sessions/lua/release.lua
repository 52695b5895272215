-- Let go of a turn, so that another worker may take it over at once.
-- KEYS  1 turn
-- ARGV  1 fence
-- Result  1 done | -1 another worker's turn, or ended
-- Idempotent: a lease that was let go is let go.

local turn = redis.call('HMGET', KEYS[1], 'fence', 'state')
if turn[1] ~= ARGV[1] or turn[2] ~= 'running' then return -1 end
redis.call('HSET', KEYS[1], 'lease', 0)
return 1
