-- Count a request for conversations.
-- KEYS  1 number of requests  2 conversations: if there are none, nothing counts (optional)
-- ARGV  1 maximum of requests in a window  2 window in s
-- Result  0 allowed | s until the next window
-- Idempotent: no, a repeat counts the request once more. While the memory is full, nothing counts.

if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local count = redis.pcall('INCR', KEYS[1])
if type(count) == 'table' then  -- the memory is full, or the key holds no number
  redis.pcall('UNLINK', KEYS[1])
  return 0
end
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if count <= tonumber(ARGV[1]) then return 0 end
return math.max(1, redis.call('TTL', KEYS[1]))
