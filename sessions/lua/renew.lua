-- Hold on to some running turns for another lease.
-- KEYS  each turn's
-- ARGV  1 lease in ms, then each turn's fence
-- Result  for each turn: 1 done | 2 done, and the turn should stop | -1 another worker's turn, or ended
--         | an error, which is that turn's alone
-- Idempotent: a lease renewed twice is renewed.

local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]

local function renew(turn_key, fence)
  local turn = redis.call('HMGET', turn_key, 'fence', 'state', 'stop')
  if turn[1] ~= fence or turn[2] ~= 'running' then return -1 end
  redis.call('HSET', turn_key, 'lease', until_ms)
  return turn[3] and 2 or 1
end

local results = {}
for i, turn_key in ipairs(KEYS) do
  local fine, result = pcall(renew, turn_key, ARGV[i + 1])
  -- Redis before 7.0 throws the text of an error, later ones a table.
  results[i] = (fine or type(result) == 'table') and result or {err = result}
end
return results
