-- Set fields of a conversation, if it exists.
-- KEYS  1 conversation
-- ARGV  field, value, field, value, …
-- Result  1 set | 0 no such conversation
-- Idempotent: a repeat sets the same values.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
