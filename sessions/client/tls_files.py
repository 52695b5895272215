"""Check the files that REDIS_URL names for TLS: OpenSSL would ask for a password on the terminal.

Each check raises ValueError, whose message names the parameter but no path, password or content.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
FOLDER = "ssl_ca_path"

_MAX_BYTES = 1 << 20
"""The maximum of a file: the certificates of all public authorities take 0.2 MB."""


def check_tls_files(parameters: Mapping[str, str]) -> None:
    """Raise ValueError if one of the named files cannot be used, or if they do not fit together."""
    contents = {name: _read_pem(name, parameters[name]) for name in FILES if name in parameters}
    if FOLDER in parameters and not _is_folder(parameters[FOLDER]):
        raise ValueError(f"{FOLDER} is not a folder that can be read")
    if "ssl_ca_certs" in parameters:
        _check_authorities(parameters["ssl_ca_certs"])
    if "ssl_keyfile" in parameters and "ssl_certfile" not in parameters:
        raise ValueError("ssl_keyfile requires ssl_certfile: name the file of the certificate too")
    if "ssl_certfile" in parameters:
        _check_client_certificate(parameters, contents)


def _read_pem(name: str, value: str) -> bytes:
    path = Path(value)
    try:
        if not value or "\0" in value:
            raise FileNotFoundError
        if path.is_dir():
            raise ValueError(f"{name} is a folder: name a file")
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise ValueError(f"{name} is no regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError:
        raise ValueError(f"the file of {name} cannot be read") from None
    if b"-----BEGIN " not in content or len(content) > _MAX_BYTES:
        raise ValueError(f"the file of {name} is not in the PEM format (-----BEGIN …)")
    return content


def _is_folder(value: str) -> bool:
    try:
        return value != "" and Path(value).is_dir() and os.access(value, os.R_OK | os.X_OK)
    except OSError:
        return False


def _check_authorities(path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        raise ValueError("the file of ssl_ca_certs has no valid certificate") from None


def _check_client_certificate(parameters: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
    password = parameters.get("ssl_password", "")
    key_name = "ssl_keyfile" if "ssl_keyfile" in parameters else "ssl_certfile"
    if b" PRIVATE KEY-----" not in contents[key_name]:
        raise ValueError(f"the file of {key_name} has no private key: name it in ssl_keyfile")
    if b"CERTIFICATE-----" not in contents["ssl_certfile"]:
        raise ValueError("the file of ssl_certfile has no certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            parameters["ssl_certfile"], parameters.get("ssl_keyfile"), lambda: password
        )
    except OSError as error:
        reason = getattr(error, "reason", None) or "unknown reason"
        if reason == "KEY_VALUES_MISMATCH":
            raise ValueError("the key does not belong to the certificate of ssl_certfile") from None
        if b"ENCRYPTED" in contents[key_name]:
            raise ValueError(
                f"ssl_password does not decrypt the key of {key_name}"
                if password
                else f"the key of {key_name} is encrypted: add ssl_password, or decrypt it"
            ) from None
        raise ValueError(f"the files of the client certificate are invalid ({reason})") from None
