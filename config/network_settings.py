"""The settings of the connection to clients: address, path, names and proxies."""

from pydantic import Field
from pydantic_settings import BaseSettings

from config.setting_types import BasePath, ConnectionsMax, Host, Hosts, Networks


class NetworkSettings(BaseSettings):
    """The part of `Settings` that is listed first."""

    host: Host = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 for all interfaces, :: for IPv6 too"
    )
    port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose"
    )
    base_path: BasePath = Field(
        "", description="Path prefix behind a reverse proxy, such as /chat; unset: none"
    )
    allowed_hosts: Hosts = Field(
        (),
        description="Names of the server, comma-separated; "
        "unset: any, or localhost and addresses if HOST is loopback",
    )
    trusted_proxies: Networks = Field(
        "127.0.0.0/8,::1",
        validate_default=True,
        description="Addresses and networks of the proxies whose X-Forwarded headers count, "
        "comma-separated; or none",
    )
    connections_max: ConnectionsMax = Field(
        "auto",
        description="Maximum connections of a worker per address and in total, such as 250,1000; "
        "or auto; or off",
    )
