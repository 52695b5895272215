-- Finish a turn: write the last records, the answer and the state together, or nothing.
-- KEYS  1 turn  2 log (also the channel's name)  3 conversation  4 messages  5 conversations
--       6 request  7 events (also the channel's name)  8 usage  9 expiries
-- ARGV  1 fence  2 offset in bytes  3 last records  4 state  5 turn id  6 conversation id
--       7 answer's message as JSON ("": none to store)  8 lifetime of the log in s  9 lifetime in s
-- Result  1 finished | 2 no such turn: only a finished turn is deleted
--         | -1 another worker holds the turn, or it finished otherwise
--         | -2 the offset is not the log's end
-- Idempotent: a turn that finished with these records is finished, also once it has been deleted.

-- A key of the wrong type is an error here, before anything is written.
redis.call('STRLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('HLEN', KEYS[8])
redis.call('ZCARD', KEYS[9])
local turn = redis.call('HMGET', KEYS[1], 'fence', 'state', 'user', 'answer', 'before', 'request')
if not turn[1] then return 2 end
if turn[1] ~= ARGV[1] then return -1 end
local offset = tonumber(ARGV[2])
if turn[2] ~= 'running' then
  local same = redis.call('GETRANGE', KEYS[2], offset, offset + #ARGV[3] - 1) == ARGV[3]
  return (same and turn[2] == ARGV[4]) and 1 or -1
end
if redis.call('STRLEN', KEYS[2]) ~= offset then return -2 end

allow_full_memory(KEYS[1])
redis.call('APPEND', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[8])
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'length', offset + #ARGV[3])
redis.call('HDEL', KEYS[1], 'lease', 'stop', 'address')
if turn[6] then
  redis.call('UNLINK', KEYS[6])
  forget(KEYS[8], KEYS[9], 'request ' .. ARGV[5])
end
redis.call('EXPIRE', KEYS[1], ARGV[9])
if redis.call('EXISTS', KEYS[3]) == 1 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local conversation = redis.call('HMGET', KEYS[3], 'running', 'head')
  redis.call('HSET', KEYS[3], 'updated', now)
  redis.call('ZADD', KEYS[5], now, ARGV[6])
  if conversation[1] == ARGV[5] then redis.call('HDEL', KEYS[3], 'running') end
  local children = redis.call('HGET', KEYS[4], '>' .. turn[3])
  local is_stored = ARGV[7] ~= ''
  if is_stored and turn[5] and children then
    -- Another version of the answer exists: one without text is not worth its place.
    is_stored = cjson.decode(ARGV[7]).content:find('%S') ~= nil
  end
  if is_stored then
    redis.call('HSET', KEYS[4], turn[4], turn[3] .. '\n' .. ARGV[7],
      '>' .. turn[3], children and children .. ' ' .. turn[4] or turn[4])
    if conversation[2] == turn[3] then
      redis.call('HSET', KEYS[3], 'head', turn[4])
      if ARGV[4] ~= 'failed' then redis.call('HDEL', KEYS[3], 'open') end
    end
  elseif turn[5] and conversation[2] == turn[3] then
    -- A regenerated answer that stayed empty: show the previous branch again.
    redis.call('HSET', KEYS[3], 'head', turn[5])
  end
  local bytes = is_stored and MESSAGE_BYTES + #ARGV[7] or 0
  grow(KEYS[8], KEYS[9], ARGV[6], bytes, now + ARGV[9] * 1000)
  for _, i in ipairs({3, 4, 5, 8, 9}) do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
  announce(KEYS[7], 'end ' .. ARGV[6] .. ' ' .. ARGV[5] .. ' ' .. ARGV[4])
end
redis.call('PUBLISH', KEYS[2], offset .. '.' .. (#ARGV[3] <= 16384 and ARGV[3] or ''))
return 1
