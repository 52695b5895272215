-- Admit a new turn, unless a rate or a number of running turns is at its maximum: count the turn,
-- and list it in the index of running turns. A rejected turn changes nothing that limits count.
-- KEYS  1 running  2 rate of the session  3 turns of the session
--       4 rate of the address  5 turns of the address  6 bytes of the address
--       (4 to 6: only if the address is known)
-- ARGV  1 member  2 member of the turn that it replaces ("": none)  3 lease in ms
--       4 lifetime of the sets in s  5 "1" if the turn was counted by the rates before
--       6 maximum of turns on the server (0 here and below: no limit)
--       7 … 9 for the session: maximum of new turns in a window, window in s, maximum of turns
--       10 … 12 the same for the address
--       13 bytes that the turn stores  14 maximum for the address in the window of 11
-- Result  {"admitted"} | {"rate" or "bytes", scope, s until the next window} | {"turns", scope},
--         where the scope is "session", "address" or "server"
-- Idempotent: a listed turn keeps its place. But unless 5 is "1", rates and bytes count a repeat:
--       parallel requests may name the same turn, and each of them may be moderated.
--
-- The index alone says which turns run: it loses a turn that ends, and one that never begins, once
-- the lease has expired. So a set needs no exact removal: members that left the index do not count.

local member, replaced = ARGV[1], ARGV[2]
local is_listed = redis.call('ZSCORE', KEYS[1], member)

-- Return whether a set has at least `max` running turns; if it seems so, remove the others.
local function is_full(set, max)
  if max == 0 or redis.call('SCARD', set) < max then return false end
  for _, other in ipairs(redis.call('ZDIFF', 2, set, KEYS[1])) do
    redis.call('SREM', set, other)
  end
  return redis.call('SCARD', set) - redis.call('SISMEMBER', set, replaced) >= max
end

local scopes = {{name = 'session', turns = KEYS[3], max_turns = tonumber(ARGV[9])}}
local counts = {{'rate', 'session', KEYS[2], 1, ARGV[7], ARGV[8]}}
if KEYS[4] then
  scopes[2] = {name = 'address', turns = KEYS[5], max_turns = tonumber(ARGV[12])}
  counts[2] = {'rate', 'address', KEYS[4], 1, ARGV[10], ARGV[11]}
  counts[3] = {'bytes', 'address', KEYS[6], ARGV[13], ARGV[14], ARGV[11]}
end

-- Drop a key that holds anything else, or lives longer than its window, because it never expires or
-- the clock was set back: it would make every admission fail.
for _, count in ipairs(counts) do
  local found, ttl = redis.pcall('GET', count[3]), redis.call('TTL', count[3])
  if found and not (type(found) == 'string' and string.match(found, '^%d+$') and #found < 16
      and ttl >= 0 and ttl <= tonumber(count[6])) then
    redis.call('UNLINK', count[3])
  end
end
for _, scope in ipairs(scopes) do
  if type(redis.pcall('SCARD', scope.turns)) == 'table' then redis.call('UNLINK', scope.turns) end
end

if ARGV[5] == '1' then counts = {} end
for _, count in ipairs(counts) do
  local kind, scope, key, amount, max = unpack(count)
  if tonumber(max) > 0 and (redis.call('GET', key) or 0) + amount > tonumber(max) then
    return {kind, scope, redis.call('TTL', key)}
  end
end
if not is_listed then
  for _, scope in ipairs(scopes) do
    if is_full(scope.turns, scope.max_turns) then return {'turns', scope.name} end
  end
  local running = redis.call('ZCARD', KEYS[1])
  if redis.call('ZSCORE', KEYS[1], replaced) then running = running - 1 end
  if tonumber(ARGV[6]) > 0 and running >= tonumber(ARGV[6]) then return {'turns', 'server'} end
end

for _, count in ipairs(counts) do
  local _, _, key, amount, max, window = unpack(count)
  if tonumber(max) > 0 then
    redis.call('INCRBY', key, amount)
    if redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, window) end
  end
end
for _, scope in ipairs(scopes) do
  if scope.max_turns > 0 then
    redis.call('SADD', scope.turns, member)
    redis.call('EXPIRE', scope.turns, ARGV[4])
  end
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], member)
return {'admitted'}
