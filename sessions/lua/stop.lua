-- Ask the worker that runs a turn to stop it.
-- KEYS  1 turn
-- ARGV  none
-- Result  1 asked | -1 it does not run
-- Idempotent: a turn that was asked to stop was asked to stop.

if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return -1 end
redis.call('HSET', KEYS[1], 'stop', 1)
return 1
