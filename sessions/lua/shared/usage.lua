-- Precedes every script that uses its names: a script that changes how much an owner stores.
-- The usage of an owner is a hash: an entry (the id of a conversation, or `request <turn>`) has its
-- bytes, and `*` has their sum. The expiries are a sorted set: an entry has the time in ms at which
-- Redis drops its keys. Data of version 0.1 has no entry before the first write.

local MESSAGE_BYTES = 600  -- for a message besides its text: its ids, its turn, its expiry
local CONVERSATION_BYTES = 600
local MAX_DROPPED = 20  -- expired entries that one call drops
local RECHECK_MS = 3600000  -- for a key without an expiry

-- Add bytes to a field of a usage; one that is not a number counts as 0.
local function add(usage, field, bytes)
  redis.call('HSET', usage, field, (tonumber(redis.call('HGET', usage, field)) or 0) + bytes)
end

-- Set the bytes of an entry, and the time at which it expires.
local function set_size(usage, expiries, entry, bytes, expires)
  local before = tonumber(redis.call('HGET', usage, entry)) or 0
  redis.call('HSET', usage, entry, bytes)
  add(usage, '*', bytes - before)
  redis.call('ZADD', expiries, expires, entry)
end

-- Add bytes to an entry that is counted already.
local function grow(usage, expiries, entry, bytes, expires)
  if redis.call('HEXISTS', usage, entry) == 0 then return end
  add(usage, entry, bytes)
  add(usage, '*', bytes)
  if expires then redis.call('ZADD', expiries, expires, entry) end
end

-- Forget an entry whose keys are gone; the last one leaves no usage behind.
local function forget(usage, expiries, entry)
  redis.call('ZREM', expiries, entry)  -- first: it is allowed while the memory is full
  local bytes = tonumber(redis.call('HGET', usage, entry))
  if not bytes then return end
  redis.call('HDEL', usage, entry)
  add(usage, '*', -bytes)
  if redis.call('EXISTS', expiries) == 0 then redis.call('UNLINK', usage) end
end

-- Return the keys and limits of an owner. From the position `first`, the arguments are those that
-- `StorageLimits.build_arguments` returns.
local function read_limits(usage, expiries, conversations, first)
  return {
    usage = usage, expiries = expiries, conversations = conversations,
    max_bytes = tonumber(ARGV[first]), max_conversations = tonumber(ARGV[first + 1]),
    max_messages = tonumber(ARGV[first + 2]), is_full = ARGV[first + 3] == '1',
    conversation_prefix = ARGV[first + 4], messages_prefix = ARGV[first + 5],
  }
end

-- Measure a conversation that has no entry; remove it from the list if it has expired.
local function measure(limits, id, now)
  local ttl = redis.call('PTTL', limits.conversation_prefix .. id)
  if ttl == -2 then return redis.call('ZREM', limits.conversations, id) end
  local bytes = CONVERSATION_BYTES
  for _, prefix in ipairs({limits.conversation_prefix, limits.messages_prefix}) do
    local found = redis.pcall('MEMORY', 'USAGE', prefix .. id, 'SAMPLES', 0)
    bytes = bytes + (type(found) == 'number' and found or 0)
  end
  set_size(limits.usage, limits.expiries, id, bytes, now + (ttl > 0 and ttl or RECHECK_MS))
end

-- Drop some entries that have expired. One that a worker of version 0.1 has extended stays.
local function drop_expired(limits, now)
  local entries = redis.call('ZRANGEBYSCORE', limits.expiries, '-inf', now, 'LIMIT', 0, MAX_DROPPED)
  for _, entry in ipairs(entries) do
    local ttl = redis.call('PTTL', limits.conversation_prefix .. entry)
    if ttl ~= -2 then
      redis.call('ZADD', limits.expiries, now + (ttl > 0 and ttl or RECHECK_MS), entry)
    else
      forget(limits.usage, limits.expiries, entry)
      redis.call('ZREM', limits.conversations, entry)
    end
  end
end

-- Return the name of the limit that storing more bytes would exceed, or nil. `conversation` is the
-- id of the conversation of these bytes, or nil for a request of /v1.
local function find_limit(limits, conversation, bytes, now)
  if limits.is_full then return 'memory' end
  local sizes = redis.call('HMGET', limits.usage, '*', conversation or '*')
  local is_known = sizes[2]
    or redis.call('EXISTS', limits.conversation_prefix .. (conversation or '')) == 1
  if not sizes[1] then
    for _, id in ipairs(redis.call('ZRANGE', limits.conversations, 0, -1)) do
      measure(limits, id, now)
    end
  elseif is_known and not sizes[2] then
    measure(limits, conversation, now)
  end
  drop_expired(limits, now)
  local count = conversation and not is_known and redis.call('ZCARD', limits.conversations) or 0
  if count >= limits.max_conversations then return 'conversations' end
  local stored = tonumber(redis.call('HGET', limits.usage, '*')) or 0
  if stored + bytes > limits.max_bytes then return 'bytes' end
end
