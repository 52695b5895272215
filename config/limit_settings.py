"""The settings that limit what clients may send, begin and store."""

from pydantic import Field

from config.network_settings import NetworkSettings
from config.setting_types import RateLimit, TurnsMax, parse_rate


class LimitSettings(NetworkSettings):
    """A part of `Settings`, listed after the settings of the network."""

    owner_max_bytes: int = Field(
        64_000_000,
        ge=1,
        le=10**15,
        description="Maximum size of the conversations of one session or API key, in bytes",
    )
    message_max: int = Field(
        32_000, ge=1, le=10_000_000, description="Maximum length of a question, in characters"
    )
    system_max: int = Field(
        8000,
        ge=1,
        le=10_000_000,
        description="Maximum length of a conversation's system prompt, in characters",
    )
    rate_limit: RateLimit = Field(
        "60/minute",
        description="Maximum rate of new turns in one session, such as 60/minute; off: no limit",
    )
    rate_limit_address: RateLimit = Field(
        "600/minute",
        description="Maximum rate of new turns from one address (IPv6: one /64); off: no limit",
    )
    turns_max: TurnsMax = Field(
        "4,40,400",
        description="Maximum number of turns that run at once: per session, per address, in total; "
        "off: no limit",
    )

    @property
    def rate(self) -> tuple[int, int]:
        """RATE_LIMIT as a number of turns and a window in seconds; 0 turns if it is off."""
        return parse_rate(self.rate_limit)

    @property
    def address_rate(self) -> tuple[int, int]:
        """RATE_LIMIT_ADDRESS in the form of `rate`."""
        return parse_rate(self.rate_limit_address)

    @property
    def turn_limits(self) -> tuple[int, int, int]:
        """TURNS_MAX per session, per address and in total; zeros if it is off."""
        session, address, total = self.turns_max.replace("off", "0,0,0").split(",")
        return int(session), int(address), int(total)
