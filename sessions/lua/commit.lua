-- Append to the logs of some turns at named offsets, if the worker's fences still hold, and tell who follows them.
-- KEYS  for each turn: its key, its log (also the channel's name)
-- ARGV  for each turn: fence, offset in bytes, bytes
-- Result  for each turn: 1 done | 2 done, and the turn should stop | -1 another worker's turn, or ended
--         | -2 not the log's end | an error, which is that turn's alone
-- Idempotent: bytes that already stand at the offset are done.

local call = redis.call

local function commit(turn_key, log, fence, offset, bytes)
  local turn = call('HMGET', turn_key, 'fence', 'state', 'stop')
  if turn[1] ~= fence or turn[2] ~= 'running' then return -1 end
  if call('STRLEN', log) == offset then
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
  local fine, result = pcall(commit, KEYS[2 * i - 1], KEYS[2 * i], fence, offset, bytes)
  -- Redis before 7.0 throws the text of an error, later ones a table.
  results[i] = (fine or type(result) == 'table') and result or {err = result}
end
return results
