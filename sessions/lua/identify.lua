-- Return the identity of the servers of this Redis; create it once.
-- KEYS  1 instance
-- ARGV  1 new id: 16 hexadecimal digits  2 new secret: 64 hexadecimal digits
-- Result  {id, secret, 1 if an unreadable identity was replaced, else 0}
-- Idempotent: a repeat returns the identity that the first call wrote.

local kind = redis.call('TYPE', KEYS[1]).ok
local found = kind == 'hash' and redis.call('HMGET', KEYS[1], 'id', 'secret') or {}
local id, secret = found[1] or '', found[2] or ''
if #id == 16 and #secret == 64 and string.match(id .. secret, '^%x+$') then
  return {id, secret, 0}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'secret', ARGV[2])
return {ARGV[1], ARGV[2], kind == 'none' and 0 or 1}
