-- Read the events of an owner after an id, and whether some of them are no longer kept.
-- KEYS  1 events
-- ARGV  1 ms of the id ("": no id)  2 number of the id within its ms
-- Result  {1 complete | 0 events may be missing, id of the last event, id, event, id, event, …}
--         without any event, the last id is one of the previous ms
-- Changes nothing.

-- Every event after the id is kept if the id is not before the first event, or if the stream was
-- never trimmed and no earlier one can have expired since the id.
local function split(id) return tonumber(id:match('^%d+')), tonumber(id:match('%d+$')) end
local function is_before(ms, number, other_ms, other_number)
  return ms < other_ms or (ms == other_ms and number < other_number)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local last_id = last and last[1] or string.format('%.0f-0', now - 1)
if ARGV[1] == '' then return {0, last_id} end

local ms, number = tonumber(ARGV[1]), tonumber(ARGV[2])
local first_ms, first_number = now, 0
if first then first_ms, first_number = split(first[1]) end
local last_ms, last_number = now, 0
if last then last_ms, last_number = split(last[1]) end
local is_known = not is_before(last_ms, last_number, ms, number)
if is_known and is_before(ms, number, first_ms, first_number) then
  is_known = redis.call('XLEN', KEYS[1]) < MAX_EVENTS and first_ms - ms <= EVENTS_TTL_S * 1000
end
if not is_known then return {0, last_id} end

local found = {1, last_id}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1] .. '-' .. ARGV[2], '+')) do
  found[#found + 1] = entry[1]
  found[#found + 1] = entry[2][2]
end
return found
