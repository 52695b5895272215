-- Precedes every script that uses its names: a script that changes what clients show announces it.

local MAX_EVENTS = 2000  -- ten minutes of questions at the default RATE_LIMIT, with as many again
local EVENTS_TTL_S = 3600

-- Append an event (words separated by spaces) to an owner's stream, which is also the name of the
-- channel that notifies the workers. If the key holds no stream, the event is dropped.
local function announce(events, event)
  local id = redis.pcall('XADD', events, 'MAXLEN', '~', MAX_EVENTS, '*', 'event', event)
  if type(id) == 'table' then return end
  redis.call('EXPIRE', events, EVENTS_TTL_S)
  redis.call('PUBLISH', events, id .. ' ' .. event)
end
