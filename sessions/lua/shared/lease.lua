-- Precedes every script that uses its name: a script that finds expired leases.

-- The maximum of LEASE_S. If a lease ends later than this from now, the clock was ahead when it was
-- written, and was set back.
local MAX_LEASE_MS = 60000
