-- End a session: its cookie opens nothing any more.
-- KEYS  1 session
-- ARGV  1 record of an ended session  2 its lifetime in s
-- Result  1
-- Idempotent: a repeat stores the same record.

redis.call('UNLINK', KEYS[1])  -- first: it is allowed while the memory is full, and so is the next
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
