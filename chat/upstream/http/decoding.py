"""Decompress the body of a response in pieces of bounded size.

A kilobyte may decompress to a megabyte, and one that was compressed twice to a gigabyte. The client
that reads the pieces decides how many it takes; httpx2's decoders would return them all at once.
"""

import zlib
from collections.abc import AsyncIterator

import httpx2

from chat.upstream.http.parser import InvalidResponseError

ACCEPT_ENCODING = "gzip, deflate"
"""The encodings that a request offers, whichever packages are installed."""

_MAX_PIECE_BYTES = 64 << 10

_ANY_HEADER = zlib.MAX_WBITS | 32
"""Tells zlib to recognise the header of gzip or of deflate."""

_CODINGS = {"gzip", "x-gzip", "deflate"}


def find_coding(headers: httpx2.Headers) -> str:
    """Return the encoding of a body, "" for none; raise InvalidResponseError if it was not offered.

    A body that was encoded twice was not offered either.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding not in _CODINGS:
        raise InvalidResponseError("the response has an encoding that was not offered")
    return coding


class DecodedBody(httpx2.AsyncByteStream):
    """The decompressed body of a response, in pieces of at most 64 KiB.

    Bytes after the end of the compressed data are ignored, and its end may be missing: the framing
    of HTTP, and the finish reason, tell whether a response is complete.
    """

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body
        self._decoder = zlib.decompressobj(_ANY_HEADER)
        self._has_begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._body:
            while part and not self._decoder.eof:
                if piece := self._decode(part):
                    yield piece
                part = self._decoder.unconsumed_tail

    async def aclose(self) -> None:
        """Close the response."""
        await self._body.aclose()

    def _decode(self, part: bytes) -> bytes:
        """Return the next piece; the rest of `part` is the decoder's `unconsumed_tail`."""
        try:
            piece = self._decoder.decompress(part, _MAX_PIECE_BYTES)
        except zlib.error as error:
            if self._has_begun:
                raise InvalidResponseError("the body cannot be decompressed") from error
            self._has_begun = True
            self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)  # deflate without a header
            return self._decode(part)
        self._has_begun = True
        return piece
