-- Precedes every script that uses its name: a script that finds expired leases.

-- The maximum of LEASE_S. A lease that ends later than this from now has expired, too: the clock
-- was ahead when it was written, and was set back.
local MAX_LEASE_MS = 60000
