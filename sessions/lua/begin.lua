-- Begin a turn, once: write the question, the turn and its log together, or nothing.
-- KEYS  1 turn  2 log  3 conversation  4 messages  5 conversations  6 turns  7 current  8 rate
--       9 request  10 events (also the channel's name)  11 usage  12 expiries
-- ARGV  1 turn id  2 conversation id  3 "1" if a missing conversation may be created
--       4 digest of the question  5 question's message id
--       6 question's message as JSON ("": the message exists, its answer is generated again)
--       7 title  8 model  9 first record before the message id  10 first record after it
--       11 attempt (random)  12 lease in ms  13 lifetime in s
--       14 maximum of turns in a window (0: no limit)  15 window in s  16 answer's message id
--       17 maximum of continuations
--       18 id of the message that the question follows ("": none, ".": the branch's end)
--       19 prefix of turn keys
--       20 moderation of the question: "off", "due" (nothing is written before it) or "passed"
--       21 request of a turn of /v1 as JSON ("": none)  22 lifetime of the request in s
--       23 to 28 limits of the owner (shared/usage.lua)
-- Result  {"begun", message id} | {"known"} the turn exists | {"conflict"} with another question
--         | {"unknown"} conversation | {"attach", turn} the same question is being answered
--         | {"busy", turn} another question is being answered
--         | {"limited", s until the next window} | {"unchecked"} the moderation is due
--         | {"full", limit} a limit of storage or memory does not allow the question
-- Idempotent: the turn stores the attempt that began it; the same attempt gets "begun" again. While
-- the moderation is due, a repeat counts the question against the limit once more.

local turn = redis.call('HMGET', KEYS[1], 'digest', 'attempt', 'user')
if turn[1] then
  if turn[1] ~= ARGV[4] then return {'conflict'} end
  if turn[2] == ARGV[11] then return {'begun', turn[3]} end
  return {'known'}
end

local conversation = redis.call('HMGET', KEYS[3], 'created', 'running', 'head', 'open')
if not conversation[1] and ARGV[3] ~= '1' then return {'unknown'} end
local is_busy = false
if conversation[2] then
  local digest = redis.call('HGET', ARGV[19] .. conversation[2], 'digest')
  if digest == ARGV[4] then return {'attach', conversation[2]} end
  is_busy = digest
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limits = read_limits(KEYS[11], KEYS[12], KEYS[5], 23)
local bytes = MESSAGE_BYTES + #ARGV[6] + (conversation[1] and 0 or CONVERSATION_BYTES + #ARGV[7])
local limit = find_limit(limits, ARGV[2], bytes + #ARGV[21], now)
-- A message has an entry in the hash, and the first child of a message has another one.
if redis.call('HLEN', KEYS[4]) >= 2 * limits.max_messages then limit = limit or 'messages' end
if limit then return {'full', limit} end
-- A question that may yet be flagged does not stop the running answer.
if is_busy and ARGV[20] ~= 'due' then return {'busy', conversation[2]} end

if tonumber(ARGV[14]) > 0 and ARGV[20] ~= 'passed' then
  local count = redis.call('INCR', KEYS[8])
  if count == 1 then redis.call('EXPIRE', KEYS[8], ARGV[15]) end
  if count > tonumber(ARGV[14]) then return {'limited', redis.call('TTL', KEYS[8])} end
end
if ARGV[20] == 'due' then return {'unchecked'} end

local expires = now + ARGV[13] * 1000
local message = ARGV[5]
if ARGV[6] ~= '' then
  -- A question without a complete answer that is sent again is not stored again.
  local open = conversation[4] and string.match(conversation[4], '^' .. ARGV[4] .. ':(.+)$')
  if open then
    message = open
    bytes = bytes - #ARGV[6]
  else
    local parent = ARGV[18] == '.' and (conversation[3] or '') or ARGV[18]
    local children = redis.call('HGET', KEYS[4], '>' .. parent)
    redis.call('HSET', KEYS[4], message, parent .. '\n' .. ARGV[6],
      '>' .. parent, children and children .. ' ' .. message or message)
  end
  redis.call('HSETNX', KEYS[3], 'title', ARGV[7])
  redis.call('HSET', KEYS[3], 'open', ARGV[4] .. ':' .. message)
else
  redis.call('HSET', KEYS[1], 'before', conversation[3])
  redis.call('HDEL', KEYS[3], 'open')
end
if conversation[1] then
  grow(KEYS[11], KEYS[12], ARGV[2], bytes, expires)
else
  set_size(KEYS[11], KEYS[12], ARGV[2], bytes, expires)
  redis.call('HSET', KEYS[3], 'created', now)
  announce(KEYS[10], 'conversation ' .. ARGV[2] .. ' created')
end
redis.call('HSET', KEYS[3], 'updated', now, 'head', message, 'running', ARGV[1])
redis.call('ZADD', KEYS[5], now, ARGV[2])
redis.call('SADD', KEYS[6], ARGV[1])
redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'digest', ARGV[4], 'state', 'running', 'fence', 1,
  'attempt', ARGV[11], 'lease', now + ARGV[12], 'model', ARGV[8], 'user', message, 'answer', ARGV[16],
  'continues', ARGV[17], 'records', 1)
if ARGV[21] ~= '' then
  redis.call('HSET', KEYS[1], 'request', 1)
  redis.call('SET', KEYS[9], ARGV[21], 'EX', ARGV[22])
  set_size(KEYS[11], KEYS[12], 'request ' .. ARGV[1], #ARGV[21], now + ARGV[22] * 1000)
end
redis.call('SET', KEYS[2], ARGV[9] .. message .. ARGV[10])
redis.call('SET', KEYS[7], ARGV[2])
for _, i in ipairs({1, 2, 3, 4, 5, 6, 7, 11, 12}) do redis.call('EXPIRE', KEYS[i], ARGV[13]) end
announce(KEYS[10], 'turn ' .. ARGV[2] .. ' ' .. ARGV[1])
return {'begun', message}
