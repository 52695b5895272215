-- Release the export of an owner, unless another export has claimed it meanwhile.
-- KEYS  1 export
-- ARGV  1 claim: the id of this export
-- Result  1
-- Idempotent: a repeat finds nothing to release, or the claim of another export.

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
