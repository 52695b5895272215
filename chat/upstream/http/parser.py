"""Create a parser of an HTTP/1.1 response that accepts common deviations from RFC 9112."""

import httptools
import httpx2

Headers = list[tuple[bytes, bytes]]


class InvalidResponseError(httpx2.RemoteProtocolError):
    """The response is not HTTP/1.1; the server would send the same again."""


def create_parser(protocol: object) -> httptools.HttpResponseParser:
    """Return a parser that calls `protocol`; it accepts the usual deviations.

    The leniencies are dangerous where two readers of one connection could disagree about the end
    of a message. Here one request is under way at a time, and bytes after its response close the
    connection.
    """
    parser = httptools.HttpResponseParser(protocol)
    parser.set_dangerous_leniencies(
        lenient_headers=True,  # folded lines
        lenient_chunked_length=True,  # Content-Length next to Transfer-Encoding
        lenient_transfer_encoding=True,
        lenient_optional_cr_before_lf=True,
        lenient_optional_lf_after_cr=True,  # without it, LF alone does not end a chunk's size
        lenient_optional_crlf_after_chunk=True,
        lenient_spaces_after_chunk_size=True,
    )
    return parser


def find_length(headers: Headers) -> tuple[bool, bool]:
    """Return whether a body ends before its connection, and whether two headers give its length.

    Transfer-Encoding overrides Content-Length (RFC 9112, section 6.3); the connection of such a
    response must not be used again.
    """
    fields = {name.lower(): value.lower() for name, value in headers}
    has_size, coding = b"content-length" in fields, fields.get(b"transfer-encoding")
    return (has_size if coding is None else b"chunked" in coding), has_size and coding is not None
