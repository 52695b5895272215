-- Begin a turn that belongs to no conversation, once: write the turn, its log and its request.
-- KEYS  1 turn  2 log  3 request
-- ARGV  1 turn id  2 conversation id (that of no conversation)  3 digest of the request
--       4 question's message id  5 answer's message id  6 model  7 first record
--       8 attempt (random)  9 lease in ms  10 maximum of continuations
--       11 request as JSON ("": do not store it)  12 lifetime in s, until the turn is finished
--       13 "1" to write nothing and return only the result
-- Result  {"begun", message id} | {"known"} the turn exists | {"conflict"} with another request
--         | {"free"} the turn may begin (only if nothing is written)
-- Idempotent: the turn stores the attempt that began it; the same attempt gets "begun" again.

local turn = redis.call('HMGET', KEYS[1], 'digest', 'attempt', 'user')
if turn[1] then
  if turn[1] ~= ARGV[3] then return {'conflict'} end
  if turn[2] == ARGV[8] then return {'begun', turn[3]} end
  return {'known'}
end

if ARGV[13] == '1' then return {'free'} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'digest', ARGV[3], 'state', 'running',
  'fence', 1, 'attempt', ARGV[8], 'lease', now + ARGV[9], 'model', ARGV[6], 'user', ARGV[4],
  'answer', ARGV[5], 'continues', ARGV[10], 'records', 1, 'request', 1)
redis.call('EXPIRE', KEYS[1], ARGV[12])
redis.call('SET', KEYS[2], ARGV[7], 'EX', ARGV[12])
if ARGV[11] ~= '' then redis.call('SET', KEYS[3], ARGV[11], 'EX', ARGV[12]) end
return {'begun', ARGV[4]}
