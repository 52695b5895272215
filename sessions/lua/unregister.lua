-- Remove members from the index of running turns, and from the sets that limits count.
-- KEYS  1 running  2 … sets of turns that limits count
-- ARGV  members
-- Result  1
-- Idempotent: a repeat finds nothing to remove.

for _, member in ipairs(ARGV) do
  redis.call('ZREM', KEYS[1], member)
  for i = 2, #KEYS do redis.call('SREM', KEYS[i], member) end
end
return 1
