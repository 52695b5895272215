-- Take over a running turn whose lease has expired, and read its record.
-- KEYS  1 turn
-- ARGV  1 attempt (random)  2 lease in ms  3 … fields of the record
-- Result  {the new fence, value of each field} | {0} the lease has not expired
--         | {-1} the turn does not run
-- Idempotent: the turn stores the attempt that took it; the same attempt gets its fence again.
-- A lease that was written while the clock was ahead is shortened: its worker may live, and then
-- renews it in time. A repeat finds a lease that has not expired.

local turn = redis.call('HMGET', KEYS[1], 'state', 'lease', 'attempt', 'fence')
if turn[1] ~= 'running' then return {-1} end
local fence = tonumber(turn[4])
if turn[3] ~= ARGV[1] then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local left = tonumber(turn[2]) - now
  if left > 0 and left <= MAX_LEASE_MS then return {0} end
  allow_full_memory(KEYS[1])
  if left > 0 then
    redis.call('HSET', KEYS[1], 'lease', now + ARGV[2])
    return {0}
  end
  redis.call('HSET', KEYS[1], 'attempt', ARGV[1], 'lease', now + ARGV[2])
  fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
end
return {fence, unpack(redis.call('HMGET', KEYS[1], unpack(ARGV, 3)))}
