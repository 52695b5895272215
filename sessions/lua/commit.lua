-- Append to a turn's log at a named offset, if the worker's fence still holds, and tell those who follow it.
-- KEYS  1 turn  2 log (also the channel's name)
-- ARGV  1 fence  2 offset in bytes  3 bytes
-- Result  1 done | 2 done, and the turn should stop | -1 another worker's turn, or ended | -2 not the log's end
-- Idempotent: bytes that already stand at the offset are done.

local turn = redis.call('HMGET', KEYS[1], 'fence', 'state', 'stop')
if turn[1] ~= ARGV[1] or turn[2] ~= 'running' then return -1 end
local offset = tonumber(ARGV[2])
local length = redis.call('STRLEN', KEYS[2])
if length == offset then
  redis.call('APPEND', KEYS[2], ARGV[3])
  redis.call('PUBLISH', KEYS[2], offset .. ':' .. (#ARGV[3] <= 16384 and ARGV[3] or ''))
elseif redis.call('GETRANGE', KEYS[2], offset, offset + #ARGV[3] - 1) ~= ARGV[3] then
  return -2
end
return turn[3] and 2 or 1
