-- Begin a turn that belongs to no conversation, once: write the turn, its log and its request.
-- KEYS  1 turn  2 log  3 request  4 rate  5 usage  6 expiries  7 conversations
-- ARGV  1 turn id  2 conversation id (that of no conversation)  3 digest of the request
--       4 question's message id  5 answer's message id  6 model  7 first record
--       8 attempt (random)  9 lease in ms  10 maximum of turns in a window (0: no limit)
--       11 window in s  12 maximum of continuations  13 request as JSON ("": do not store it)
--       14 lifetime in s, until the turn is finished
--       15 moderation of the request: "off", "due" (nothing is written before it) or "passed"
--       16 to 21 limits of the owner (shared/usage.lua)  22 lifetime of the usage in s
-- Result  {"begun", message id} | {"known"} the turn exists | {"conflict"} with another request
--         | {"limited", s until the next window} | {"unchecked"} the moderation is due
--         | {"full", limit} a limit of storage or memory does not allow the request
-- Idempotent: the turn stores the attempt that began it; the same attempt gets "begun" again. While
-- the moderation is due, a repeat counts the request against the limit once more.

local turn = redis.call('HMGET', KEYS[1], 'digest', 'attempt', 'user')
if turn[1] then
  if turn[1] ~= ARGV[3] then return {'conflict'} end
  if turn[2] == ARGV[8] then return {'begun', turn[3]} end
  return {'known'}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limits = read_limits(KEYS[5], KEYS[6], KEYS[7], 16)
-- A request that is not stored leaves a log, which expires: only the memory limits it.
local limit = limits.is_full and 'memory' or nil
if ARGV[13] ~= '' then limit = limit or find_limit(limits, nil, #ARGV[13], now) end
if limit then return {'full', limit} end

if tonumber(ARGV[10]) > 0 and ARGV[15] ~= 'passed' then
  local count = redis.call('INCR', KEYS[4])
  if count == 1 then redis.call('EXPIRE', KEYS[4], ARGV[11]) end
  if count > tonumber(ARGV[10]) then return {'limited', redis.call('TTL', KEYS[4])} end
end
if ARGV[15] == 'due' then return {'unchecked'} end

redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'digest', ARGV[3], 'state', 'running',
  'fence', 1, 'attempt', ARGV[8], 'lease', now + ARGV[9], 'model', ARGV[6], 'user', ARGV[4],
  'answer', ARGV[5], 'continues', ARGV[12], 'records', 1, 'request', 1)
redis.call('EXPIRE', KEYS[1], ARGV[14])
redis.call('SET', KEYS[2], ARGV[7], 'EX', ARGV[14])
if ARGV[13] ~= '' then
  redis.call('SET', KEYS[3], ARGV[13], 'EX', ARGV[14])
  set_size(KEYS[5], KEYS[6], 'request ' .. ARGV[1], #ARGV[13], now + ARGV[14] * 1000)
  for _, i in ipairs({5, 6}) do redis.call('EXPIRE', KEYS[i], ARGV[22]) end
end
return {'begun', ARGV[4]}
