-- Begin a turn, once: write the question, the turn and its log together, or nothing.
-- KEYS  1 turn  2 log  3 conversation  4 messages  5 conversations  6 turns  7 current
--       8 request  9 events (also the channel's name)  10 usage  11 expiries
-- ARGV  1 turn id  2 conversation id
--       3 "1" if the question names no conversation: it may be created; "2" if it is to be new
--       4 digest of the question  5 question's message id
--       6 question's message as JSON ("": the message exists, its answer is generated again)
--       7 title  8 model  9 first record before the message id  10 first record after it
--       11 attempt (random)  12 lease in ms  13 lifetime in s  14 answer's message id
--       15 maximum of continuations
--       16 id of the message that the question follows ("": none, ".": the branch's end)
--       17 prefix of turn keys  18 "1" to return only the result: 6 and 19 are empty
--       19 request of a turn of /v1 as JSON ("": none)  20 lifetime of the request in s
--       21 to 26 limits of the owner (shared/usage.lua)
--       27 bytes of the message  28 bytes of the request  29 address as a hash ("": unknown)
-- Result  {"begun", message id} | {"known"} the turn exists | {"conflict"} with another question
--         | {"unknown"} conversation
--         | {"moved", conversation} another request began the session's current conversation
--         | {"attach", turn} the same question is being answered (with 3: in any conversation)
--         | {"busy", turn} another question is being answered
--         | {"elsewhere"} the same, but neither 3 nor 16 names a place: begin a new conversation
--         | {"free"} the turn may begin (only with 18)
--         | {"full", limit} a limit of storage or memory does not allow the question
-- Idempotent: the turn stores the attempt that began it; the same attempt gets "begun" again.

local MAX_SEARCHED = 20  -- conversations; TURNS_MAX allows a session four running turns by default

-- Return the turn that runs in a conversation, and whether it answers the same question.
local function find_running(id)
  local turn = redis.pcall('HGET', ARGV[25] .. id, 'running')
  if type(turn) ~= 'string' then return nil, false end
  local found = redis.pcall('HMGET', ARGV[17] .. turn, 'digest', 'state')
  if found[2] ~= 'running' then return nil, false end
  return turn, found[1] == ARGV[4]
end

local turn = redis.call('HMGET', KEYS[1], 'digest', 'attempt', 'user')
if turn[1] then
  if turn[1] ~= ARGV[4] then return {'conflict'} end
  if turn[2] == ARGV[11] then return {'begun', turn[3]} end
  return {'known'}
end

local conversation = redis.call('HMGET', KEYS[3], 'created', 'head', 'open')
-- A key of the wrong type is an error here, before anything is written.
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('SCARD', KEYS[6])
local running, is_same = find_running(ARGV[2])
if is_same then return {'attach', running} end
local is_free = ARGV[3] == '1' and ARGV[16] == '.'  -- to be answered in any conversation
if ARGV[3] == '1' then
  local current = redis.call('GET', KEYS[7])
  -- A session that has asked nothing yet sends nothing again.
  for _, id in ipairs(current and redis.call('ZREVRANGE', KEYS[5], 0, MAX_SEARCHED - 1) or {}) do
    local other, is_other_same = find_running(id)
    if is_other_same then return {'attach', other} end
  end
  local is_moved = not conversation[1] and current and current ~= ARGV[2]
  if is_moved and not (is_free and find_running(current)) then return {'moved', current} end
elseif ARGV[3] == '0' and not conversation[1] then
  return {'unknown'}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limits = read_limits(KEYS[10], KEYS[11], KEYS[5], 21)
local bytes = MESSAGE_BYTES + ARGV[27] + (conversation[1] and 0 or CONVERSATION_BYTES + #ARGV[7])
local limit = find_limit(limits, ARGV[2], bytes + ARGV[28], now)
-- A message has an entry in the hash, and the first child of a message has another one.
if redis.call('HLEN', KEYS[4]) >= 2 * limits.max_messages then limit = limit or 'messages' end
if limit then return {'full', limit} end
if running then return is_free and {'elsewhere'} or {'busy', running} end
if ARGV[18] == '1' then return {'free'} end

local expires = now + ARGV[13] * 1000
local message = ARGV[5]
if ARGV[6] ~= '' then
  -- A question without a complete answer that is sent again is not stored again.
  local open = conversation[3] and string.match(conversation[3], '^' .. ARGV[4] .. ':(.+)$')
  if open then
    message = open
    bytes = bytes - #ARGV[6]
  else
    local head = conversation[2] or ''
    if redis.call('HEXISTS', KEYS[4], head) == 0 then head = '' end
    local parent = ARGV[16] == '.' and head or ARGV[16]
    local children = redis.call('HGET', KEYS[4], '>' .. parent)
    redis.call('HSET', KEYS[4], message, parent .. '\n' .. ARGV[6],
      '>' .. parent, children and children .. ' ' .. message or message)
  end
  redis.call('HSETNX', KEYS[3], 'title', ARGV[7])
  redis.call('HSET', KEYS[3], 'open', ARGV[4] .. ':' .. message)
else
  redis.call('HSET', KEYS[1], 'before', conversation[2])
  redis.call('HDEL', KEYS[3], 'open')
end
if conversation[1] then
  grow(KEYS[10], KEYS[11], ARGV[2], bytes, expires)
else
  set_size(KEYS[10], KEYS[11], ARGV[2], bytes, expires)
  redis.call('HSET', KEYS[3], 'created', now)
  announce(KEYS[9], 'conversation ' .. ARGV[2] .. ' created')
end
redis.call('HSET', KEYS[3], 'updated', now, 'head', message, 'running', ARGV[1])
redis.call('ZADD', KEYS[5], now, ARGV[2])
redis.call('SADD', KEYS[6], ARGV[1])
redis.call('HSET', KEYS[1], 'conversation', ARGV[2], 'digest', ARGV[4], 'state', 'running', 'fence', 1,
  'attempt', ARGV[11], 'lease', now + ARGV[12], 'model', ARGV[8], 'user', message, 'answer', ARGV[14],
  'continues', ARGV[15], 'records', 1)
if ARGV[29] ~= '' then redis.call('HSET', KEYS[1], 'address', ARGV[29]) end
if ARGV[19] ~= '' then
  redis.call('HSET', KEYS[1], 'request', 1)
  redis.call('SET', KEYS[8], ARGV[19], 'EX', ARGV[20])
  set_size(KEYS[10], KEYS[11], 'request ' .. ARGV[1], #ARGV[19], now + ARGV[20] * 1000)
end
redis.call('SET', KEYS[2], ARGV[9] .. message .. ARGV[10])
redis.call('SET', KEYS[7], ARGV[2])
for _, i in ipairs({1, 2, 3, 4, 5, 6, 7, 10, 11}) do redis.call('EXPIRE', KEYS[i], ARGV[13]) end
announce(KEYS[9], 'turn ' .. ARGV[2] .. ' ' .. ARGV[1])
return {'begun', message}
