"""Write the configuration of each proxy: its file in config/, with ports and paths of a test."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT


@dataclass(frozen=True)
class Site:
    """Where a proxy listens and what it forwards to."""

    home: Path
    http_port: int
    https_port: int
    origins: Sequence[int]
    certificate: Path
    """The folder with `holdline.crt`, `holdline.key` and `ca.pem`."""
    edit: tuple[str, str] | None
    """A part of the file, and its replacement."""

    def read_shipped(self, name: str, changes: Mapping[str, str]) -> str:
        """Return a file of config/ with these changes, each of which must apply."""
        text = (ROOT / "config" / name).read_text()
        return self.change(text, {"/etc/ssl/holdline": f"{self.certificate}/holdline", **changes})

    def change(self, text: str, changes: Mapping[str, str]) -> str:
        for old, new in [*changes.items(), *([self.edit] if self.edit else [])]:
            assert old in text, f"the file does not contain: {old}"
            text = text.replace(old, new)
        return text


def write_nginx(site: Site) -> list[str]:
    """Include the shipped file as Debian does, in an `http` block that compresses and buffers."""
    server = "    server 127.0.0.1:8000 fail_timeout=1s;\n"
    shipped = site.read_shipped(
        "nginx.conf",
        {
            "listen 80;": f"listen 127.0.0.1:{site.http_port};",
            "listen 443 ssl": f"listen 127.0.0.1:{site.https_port} ssl",
            server: "".join(server.replace("8000", str(port)) for port in site.origins),
            "chat.example.com": "localhost",
        },
    )
    return _run_nginx(site, f"gzip on; gzip_types *; proxy_buffering on;\n{shipped}")


def write_default_nginx(site: Site) -> list[str]:
    """Write a site with a `proxy_pass` and nothing else; an origin with TLS is another proxy."""
    certificate = f"{site.certificate}/holdline"
    (origin,) = site.origins
    block = f"""server {{
        listen 127.0.0.1:{site.http_port};
        listen 127.0.0.1:{site.https_port} ssl http2;
        ssl_certificate {certificate}.crt;
        ssl_certificate_key {certificate}.key;
        location / {{ proxy_pass http://127.0.0.1:{origin}; }}
    }}"""
    return _run_nginx(site, site.change(block, {}))


def _run_nginx(site: Site, sites: str) -> list[str]:
    home = site.home
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    (home / "main.conf").write_text(
        f"daemon off; worker_processes 2; pid {home}/pid; error_log {home}/log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{folders}\n{sites}\n}}\n"
    )
    return ["nginx", "-e", f"{home}/log", "-c", f"{home}/main.conf"]


def write_caddy(site: Site) -> list[str]:
    (origin,) = site.origins
    certificate = f"{site.certificate}/holdline"
    shipped = (ROOT / "config" / "Caddyfile").read_text()
    (home := site.home).joinpath("Caddyfile").write_text(
        f"{{\nadmin unix/{home}/admin\nhttp_port {site.http_port}\nhttps_port {site.https_port}\n"
        f"skip_install_trust\n}}\n"
        + site.change(
            shipped,
            {
                "127.0.0.1:8000": f"127.0.0.1:{origin}",
                "chat.example.com {": f"localhost {{\nbind 127.0.0.1\n"
                f"tls {certificate}.crt {certificate}.key",
            },
        )
    )
    return ["caddy", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]


def write_haproxy(site: Site) -> list[str]:
    server = "    server first 127.0.0.1:8000\n"
    changes = {
        "bind :80": f"bind 127.0.0.1:{site.http_port}",
        "bind :443": f"bind 127.0.0.1:{site.https_port}",
        server: "".join(
            f"    server s{number} 127.0.0.1:{port}\n" for number, port in enumerate(site.origins)
        ),
    }
    if os.geteuid():
        changes |= {"    user haproxy\n": "", "    group haproxy\n": ""}
    (site.home / "haproxy.cfg").write_text(site.read_shipped("haproxy.cfg", changes))
    return ["haproxy", "-W", "-f", str(site.home / "haproxy.cfg")]


def write_apache(site: Site) -> list[str]:
    """Include the shipped file in a server that compresses everything, with Debian's modules."""
    (origin,) = site.origins
    shipped = site.read_shipped(
        "apache.conf",
        {
            "*:80>": f"*:{site.http_port}>",
            "*:443>": f"*:{site.https_port}>",
            "127.0.0.1:8000": f"127.0.0.1:{origin}",
            "chat.example.com": "localhost",
        },
    )
    modules = (
        "mpm_event", "authz_core", "alias", "env", "deflate", "filter", "headers", "http2",
        "proxy", "proxy_http", "reqtimeout", "setenvif", "socache_shmcb", "ssl",
    )  # fmt: skip
    loaded = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules
    )
    home = site.home
    as_root = "" if os.geteuid() else "User www-data\nGroup www-data\n"
    (home / "main.conf").write_text(
        f"ServerRoot {home}\nDefaultRuntimeDir {home}\nPidFile {home}/pid\nErrorLog {home}/log\n"
        f"ServerName localhost\nDefine APACHE_LOG_DIR {home}\n{loaded}\n{as_root}"
        "RequestReadTimeout header=20-40,minrate=500\nRequestReadTimeout body=10,minrate=500\n"
        "SetOutputFilter DEFLATE\n"
        f"Listen 127.0.0.1:{site.http_port}\nListen 127.0.0.1:{site.https_port}\n{shipped}"
    )
    return ["apache2", "-D", "FOREGROUND", "-f", f"{home}/main.conf"]


@dataclass(frozen=True)
class Kind:
    """A program, and a function that writes its configuration and returns its command line."""

    program: str
    write: Callable[[Site], list[str]]
    reload: signal.Signals | None
    """The signal that reloads the configuration; Caddy has a command instead."""


KINDS: Mapping[str, Kind] = {
    "nginx": Kind("nginx", write_nginx, signal.SIGHUP),
    "nginx-default": Kind("nginx", write_default_nginx, signal.SIGHUP),
    "caddy": Kind("caddy", write_caddy, None),
    "haproxy": Kind("haproxy", write_haproxy, signal.SIGUSR2),
    "apache": Kind("apache2", write_apache, signal.SIGUSR1),
}

SHIPPED = ("nginx", "caddy", "haproxy", "apache")
"""The proxies that have a file in config/."""
BALANCING = ("nginx", "haproxy")
"""The proxies whose shipped file may have several servers."""
FRONTS = (*SHIPPED, "nginx-default", "nginx-nginx")
"""All arrangements: `nginx-nginx` is a default nginx in front of one with the shipped file."""

TEN_SECONDS: Mapping[str, tuple[str, str]] = {
    "nginx": ("proxy_read_timeout 1h", "proxy_read_timeout 10s"),
    "nginx-default": ("location / {", "location / { proxy_read_timeout 10s;"),
    "nginx-nginx": ("proxy_read_timeout 1h", "proxy_read_timeout 10s"),
    "caddy": ("transport http {", "transport http {\nread_timeout 10s"),
    "haproxy": ("timeout server 1h", "timeout server 10s"),
    "apache": ("timeout=3600", "timeout=10"),
}
"""For each proxy, the part of its file that makes it cut a connection after 10 s of silence."""
