"""A REDIS_URL that cannot work is rejected with one line, before anything connects."""

import os
import pty
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from sessions.client.connection import connect
from tests.processes import PATIENCE_S, ROOT

PASSWORD = "a-secret-of-the-test"


def find_problem(url: str) -> str:
    """Return the line about a URL; "" if it is accepted."""
    try:
        connect(url)
    except ValueError as error:
        problem = str(error)
    else:
        problem = ""
    assert "\n" not in problem
    assert PASSWORD not in problem
    return problem


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://a..b:6379", "host name has an empty part"),
        ("redis://.a", "host name has an empty part"),
        (f"redis://{'a' * 64}.example", "or one that is too long"),
        (f"redis://{'a.' * 150}example", "host name is too long"),
        ("redis://a b:6379", "has a space"),
        ("redis://a%00b", "a control character"),
        ("redis://[::1", "its host is invalid"),
        (f"redis://user:{PASSWORD}\u2100@host", "its host is invalid"),
        (f"redis://:{PASSWORD}/0", "its host or port is invalid"),
        ("redis+cluster://a,b..c", "host name has an empty part"),
        ("redis+cluster://a,,b", "an address without a host"),
        ("redis+cluster://", "an address without a host"),
        ("redis+cluster://:6379", "an address without a host"),
        ("redis://host/0?db=3", "two databases: remove /0, or the parameter db"),
        ("redis://host/2?db=1", "two databases"),
        ("redis://host?db=1&db=2", "the parameter db twice"),
        ("redis://host?db=", "db must be a whole number"),
        ("redis://host?db=-1", "db must be a whole number"),
        ("unix://tmp/x.sock", "third slash: unix:///path/redis.sock"),
        (f"unix://user:{PASSWORD}@host/x.sock", "third slash"),
        ("unix://", "name a socket"),
        ("unix:///", "name a socket"),
        ("unix://?db=1", "name a socket"),
        ("unix:///tmp", "its path is a folder: name the socket"),
        ("unix:///etc/passwd", "its path is a file: name the socket"),
        (f"unix:///{'x' * 107}", "over 107 bytes"),
        ("unix:///a%00b", "a NUL"),
        ("rediss+cluster://host?ssl_password=x", "ssl_password is only for a single Redis"),
        ("rediss+cluster://host?ssl_ca_path=/etc", "ssl_ca_path is only for a single Redis"),
    ],
)
def test_a_url_that_cannot_work_is_rejected(url: str, problem: str) -> None:
    assert problem in find_problem(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://:6379",
        f"redis://user:{PASSWORD}@host/3?db=3",
        "redis://host/",
        "redis://host.",
        "redis://b\u00fccher.example",
        "redis://[::1]:6379",
        "rediss://host?ssl_ca_path=/etc",
        "redis+cluster://[::1]:6379,host-2",
        f"unix://user:{PASSWORD}@/missing/redis.sock?db=1",
    ],
)
def test_a_url_that_can_work_is_accepted(url: str) -> None:
    assert find_problem(url) == ""


def test_the_path_of_a_socket_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        assert find_problem(f"unix://{path}") == ""


# The files of TLS


class Files(NamedTuple):
    """The folder of the files, by the names that the cases below use."""

    folder: Path

    def url(self, parameters: str) -> str:
        """Return a URL whose parameters name files as `ssl_keyfile=<key>`."""
        text = parameters.replace("<", f"{self.folder}/").replace(">", "")
        return f"rediss://host?{text}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca"))
    for name in ("", "other-"):
        certificate = ca.issue_cert("holdline")
        certificate.private_key_pem.write_to_path(str(folder / f"{name}key"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}cert"))
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}both"))
    key = serialization.load_pem_private_key((folder / "key").read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "encrypted").write_bytes(key.private_bytes(*formats, encryption))
    both = (folder / "encrypted").read_text() + (folder / "cert").read_text()
    (folder / "encrypted-both").write_text(both)
    (folder / "der").write_bytes(ssl.PEM_cert_to_DER_cert((folder / "cert").read_text()))
    (folder / "x509").write_text((folder / "cert").read_text().replace("CERT", "X509 CERT"))
    (folder / "text").write_text("no certificate\n")
    (folder / "empty").touch()
    (folder / "cut").write_text((folder / "ca").read_text()[:200])
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return Files(folder)


PAIR = "ssl_certfile=<cert>&ssl_keyfile="

WRONG_FILES = [
    (PAIR + "<encrypted>", "the key of ssl_keyfile is encrypted: add ssl_password"),
    (PAIR + "<encrypted>&ssl_password=", "the key of ssl_keyfile is encrypted: add ssl_password"),
    (PAIR + "<encrypted>&ssl_password=wrong", "ssl_password does not decrypt the key"),
    ("ssl_certfile=<encrypted-both>", "the key of ssl_certfile is encrypted: add ssl_password"),
    ("ssl_keyfile=<key>", "ssl_keyfile requires ssl_certfile"),
    ("ssl_certfile=<cert>", "ssl_certfile has no private key: name it in ssl_keyfile"),
    ("ssl_certfile=<key>", "ssl_certfile has no certificate"),
    (PAIR + "<cert>", "ssl_keyfile has no private key"),
    (PAIR + "<other-key>", "the key does not belong to the certificate"),
    ("ssl_ca_certs=<key>", "ssl_ca_certs has no valid certificate"),
    ("ssl_ca_certs=<cut>", "ssl_ca_certs has no valid certificate"),
    ("ssl_certfile=<cut>&ssl_keyfile=<key>", "the files of the client certificate are invalid ("),
    ("ssl_ca_path=<ca>", "ssl_ca_path is not a folder"),
    ("ssl_ca_path=<missing>", "ssl_ca_path is not a folder"),
    ("ssl_ca_path=", "ssl_ca_path is not a folder"),
    *(
        (f"{prefix}<{file}>", f"{name} {problem}")
        for prefix, name in (
            ("ssl_ca_certs=", "ssl_ca_certs"),
            (PAIR, "ssl_keyfile"),
            ("ssl_keyfile=<key>&ssl_certfile=", "ssl_certfile"),
        )
        for file, problem in (
            ("der", "is not in the PEM format"),
            ("text", "is not in the PEM format"),
            ("empty", "is not in the PEM format"),
            ("missing", "cannot be read"),
            ("a%00b", "cannot be read"),
            ("folder", "is a folder: name a file"),
            ("pipe", "is no regular file"),
        )
    ),
]


@pytest.mark.parametrize(("parameters", "problem"), WRONG_FILES)
def test_a_wrong_file_of_tls_is_rejected(files: Files, parameters: str, problem: str) -> None:
    assert problem in find_problem(files.url(parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        "ssl_ca_certs=<ca>",
        "ssl_ca_path=<folder>",
        PAIR + "<key>",
        "ssl_certfile=<x509>&ssl_keyfile=<key>",
        "ssl_certfile=<both>",
        PAIR + f"<encrypted>&ssl_password={PASSWORD}",
        f"ssl_certfile=<encrypted-both>&ssl_password={PASSWORD}",
    ],
)
def test_the_files_of_tls_are_accepted(files: Files, parameters: str) -> None:
    assert find_problem(files.url(parameters)) == ""


def test_an_encrypted_key_does_not_ask_on_the_terminal(files: Files) -> None:
    """OpenSSL would open /dev/tty, and wait."""
    ours, theirs = pty.openpty()
    code = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "from sessions.client.connection import connect; connect(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, files.url(PAIR + "<encrypted>")],
        cwd=ROOT, stdin=theirs, stderr=subprocess.PIPE, start_new_session=True, timeout=PATIENCE_S,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.stderr.decode().endswith("is encrypted: add ssl_password, or decrypt it\n")
