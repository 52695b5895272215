-- Count a request for conversations, or the bytes that it stores, unless that exceeds a maximum.
-- KEYS  1 counter  2 conversations: if there are none, nothing counts (optional)
-- ARGV  1 maximum in a window  2 window in s  3 amount to count
-- Result  0 allowed | s until the next window
-- Idempotent: no, a repeat counts once more. While the memory is full, nothing counts.

if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local found, ttl = redis.pcall('GET', KEYS[1]), redis.call('TTL', KEYS[1])
-- Drop a key that holds anything else, or lives longer than its window, because it never expires or
-- the clock was set back.
if found and not (type(found) == 'string' and string.match(found, '^%d+$') and #found < 16
    and ttl >= 0 and ttl <= tonumber(ARGV[2])) then
  redis.call('UNLINK', KEYS[1])
  found, ttl = false, -2
end
if (found or 0) + ARGV[3] > tonumber(ARGV[1]) then return math.max(1, ttl) end
redis.pcall('INCRBY', KEYS[1], ARGV[3])
if ttl < 0 then redis.pcall('EXPIRE', KEYS[1], ARGV[2]) end
return 0
