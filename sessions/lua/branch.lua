-- Read a branch of the message tree from its end towards its root, within a budget.
-- KEYS  1 conversation  2 messages
-- ARGV  1 message to start from ("": the branch's end)  2 maximum of bytes  3 maximum of messages
-- Result  {id, entry, id, entry, …}, newest first; the first message even if it exceeds the bytes
-- Changes nothing.

local id = ARGV[1] ~= '' and ARGV[1] or redis.call('HGET', KEYS[1], 'head')
local bytes, left, found = tonumber(ARGV[2]), tonumber(ARGV[3]), {}
while id and id ~= '' and left > 0 do
  local entry = redis.call('HGET', KEYS[2], id)
  if not entry then break end
  bytes = bytes - #entry
  if bytes < 0 and #found > 0 then break end
  found[#found + 1] = id
  found[#found + 1] = entry
  left = left - 1
  id = string.match(entry, '^(.-)\n')
end
return found
