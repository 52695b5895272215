-- Renew the leases of several running turns.
-- KEYS  each turn
-- ARGV  1 lease in ms  2 … fence of each turn
-- Result  for each turn: 1 renewed | 2 renewed, and the turn must stop
--         | -1 another worker holds the turn, or it does not run | an error of this turn alone
-- Idempotent: a repeat renews the same leases.

local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]

local function renew(turn_key, fence)
  local turn = redis.call('HMGET', turn_key, 'fence', 'state', 'stop')
  if turn[1] ~= fence or turn[2] ~= 'running' then return -1 end
  allow_full_memory(turn_key)
  redis.call('HSET', turn_key, 'lease', until_ms)
  return turn[3] and 2 or 1
end

local results = {}
for i, turn_key in ipairs(KEYS) do
  local succeeded, result = pcall(renew, turn_key, ARGV[i + 1])
  -- Redis before 7.0 throws an error's text, later versions throw a table.
  results[i] = (succeeded or type(result) == 'table') and result or {err = result}
end
return results
