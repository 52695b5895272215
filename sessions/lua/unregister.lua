-- Remove members from the index of running turns.
-- KEYS  1 running
-- ARGV  members
-- Result  1
-- Idempotent: a repeat finds nothing to remove.

for _, member in ipairs(ARGV) do redis.call('ZREM', KEYS[1], member) end
return 1
