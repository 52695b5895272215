-- Change fields of a conversation, if it exists.
-- KEYS  1 conversation
-- ARGV  field, value, field, value …
-- Result  1 changed | 0 there is no such conversation
-- Idempotent: the same values twice are the same values.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
