"""Wait between the tries of an operation that may succeed later."""

import asyncio


class Backoff:
    """Waits between tries: 50 ms at first, doubling up to 1 s."""

    def __init__(self) -> None:
        self._delay_s = 0.05

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(1.0, self._delay_s * 2)
