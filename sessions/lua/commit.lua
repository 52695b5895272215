-- Append bytes to the logs of several turns, each at a stated offset, and notify their followers.
-- KEYS  for each turn: turn, log (also the channel's name)
-- ARGV  for each turn: fence, offset in bytes, bytes
-- Result  for each turn: 1 committed | 2 committed, and the turn must stop
--         | -1 another worker holds the turn, or it does not run
--         | -2 the offset is not the log's end
--         | an error of this turn alone
-- Idempotent: bytes that are already at the offset count as committed.

local call = redis.call

local function commit(turn_key, log, fence, offset, bytes)
  local turn = call('HMGET', turn_key, 'fence', 'state', 'stop')
  if turn[1] ~= fence or turn[2] ~= 'running' then return -1 end
  if call('STRLEN', log) == offset then
    allow_full_memory(turn_key)
    call('APPEND', log, bytes)
    call('PUBLISH', log, offset .. ':' .. (#bytes <= 16384 and bytes or ''))
  elseif call('GETRANGE', log, offset, offset + #bytes - 1) ~= bytes then
    return -2
  end
  return turn[3] and 2 or 1
end

local results = {}
for i = 1, #KEYS / 2 do
  local fence, offset, bytes = ARGV[3 * i - 2], tonumber(ARGV[3 * i - 1]), ARGV[3 * i]
  local succeeded, result = pcall(commit, KEYS[2 * i - 1], KEYS[2 * i], fence, offset, bytes)
  -- Redis before 7.0 throws an error's text, later versions throw a table.
  results[i] = (succeeded or type(result) == 'table') and result or {err = result}
end
return results
