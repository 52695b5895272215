-- Begin a turn that belongs to no conversation, once: write the turn, its log and its request.
-- KEYS  1 turn  2 log  3 request  4 usage  5 expiries  6 conversations
-- ARGV  1 turn id  2 conversation id (that of no conversation)  3 digest of the request
--       4 question's message id  5 answer's message id  6 model  7 first record
--       8 attempt (random)  9 lease in ms  10 maximum of continuations
--       11 request as JSON ("": do not store it)  12 lifetime in s, until the turn is finished
--       13 "1" to return only the result: 11 is empty
--       14 to 19 limits of the owner (shared/usage.lua)  20 lifetime of the usage in s
--       21 bytes of the request (0: it is not stored)  22 address as a hash ("": unknown)
-- Result  {"begun", message id} | {"known"} the turn exists | {"conflict"} with another request
--         | {"free"} the turn may begin (only with 13)
--         | {"full", limit} a limit of storage or memory does not allow the request
-- Idempotent: the turn stores the attempt that began it; the same attempt gets "begun" again.

local turn = redis.call('HMGET', KEYS[1], 'digest', 'attempt', 'user')
if turn[1] then
  if turn[1] ~= ARGV[3] then return {'conflict'} end
  if turn[2] == ARGV[8] then return {'begun', turn[3]} end
  return {'known'}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limits = read_limits(KEYS[4], KEYS[5], KEYS[6], 14)
-- A request that is not stored leaves a log, which expires: only the memory limits it.
local limit = limits.is_full and 'memory' or nil
if ARGV[21] ~= '0' then limit = limit or find_limit(limits, nil, tonumber(ARGV[21]), now) end
if limit then return {'full', limit} end
if ARGV[13] == '1' then return {'free'} end

redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'digest', ARGV[3], 'state', 'running',
  'fence', 1, 'attempt', ARGV[8], 'lease', now + ARGV[9], 'model', ARGV[6], 'user', ARGV[4],
  'answer', ARGV[5], 'continues', ARGV[10], 'records', 1, 'request', 1)
if ARGV[22] ~= '' then redis.call('HSET', KEYS[1], 'address', ARGV[22]) end
redis.call('EXPIRE', KEYS[1], ARGV[12])
redis.call('SET', KEYS[2], ARGV[7], 'EX', ARGV[12])
if ARGV[11] ~= '' then
  redis.call('SET', KEYS[3], ARGV[11], 'EX', ARGV[12])
  set_size(KEYS[4], KEYS[5], 'request ' .. ARGV[1], #ARGV[11], now + ARGV[12] * 1000)
  for _, i in ipairs({4, 5}) do redis.call('EXPIRE', KEYS[i], ARGV[20]) end
end
return {'begun', ARGV[4]}
