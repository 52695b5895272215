-- Read a part of a turn's log with the state of the turn.
-- KEYS  1 turn  2 log
-- ARGV  1 offset in bytes  2 maximum of bytes
-- Result  {state, or nil without such a turn, length of the log in bytes, bytes from the offset}
-- Changes nothing.

local offset = tonumber(ARGV[1])
return {
  redis.call('HGET', KEYS[1], 'state'),
  redis.call('STRLEN', KEYS[2]),
  redis.call('GETRANGE', KEYS[2], offset, offset + ARGV[2] - 1),
}
