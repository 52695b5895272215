-- Request that the worker of a running turn stops it.
-- KEYS  1 turn
-- ARGV  none
-- Result  1 requested | -1 the turn does not run
-- Idempotent: a repeat sets the same field.

if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return -1 end
allow_full_memory(KEYS[1])
redis.call('HSET', KEYS[1], 'stop', 1)
return 1
