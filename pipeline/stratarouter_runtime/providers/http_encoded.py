"""Replies that were compressed although the call asked for none of it: the answer in them was paid for."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from stratarouter_runtime.errors import ProviderBadReplyError
from stratarouter_runtime.providers.http import MAX_REPLY_BYTES, too_large

GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
RAW = -zlib.MAX_WBITS
KNOWN = {
    "gzip": (GZIP_OR_ZLIB,),
    "x-gzip": (GZIP_OR_ZLIB,),
    "deflate": (GZIP_OR_ZLIB, RAW),  # by the standard in zlib's frame; some leave that out
}


def decoded(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """``body`` as it was before it was encoded as ``headers`` (lower-case names) say.

    Raises ProviderBadReplyError where it is larger than MAX_REPLY_BYTES, and where it is a success that cannot be
    read; a refusal is its status, whatever its body says.
    """
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")):
        name = encoding.strip()
        if name in {"", "identity"}:
            continue
        found = _unpacked(status, KNOWN.get(name, ()), body)
        if found is None and 200 <= status < 300:
            raise ProviderBadReplyError(
                f"the reply is compressed ({name[:20]!r}), which was not asked for, and cannot be read",
                status=status,
                maybe_paid=True,
            )
        if found is None:
            return body
        body = found
    return body


def _unpacked(status: int, formats: tuple[int, ...], body: bytes) -> bytes | None:
    for wbits in formats:
        try:
            return _inflated(status, wbits, body)
        except zlib.error:
            continue
    return None


def _inflated(status: int, wbits: int, body: bytes) -> bytes:
    """All members of ``body``, of which there may be several. Raises zlib.error where one is broken or cut off."""
    found = bytearray()
    while True:
        member = zlib.decompressobj(wbits)
        found += member.decompress(body, MAX_REPLY_BYTES + 1 - len(found))
        if len(found) > MAX_REPLY_BYTES:
            raise too_large(status)
        if not member.eof:
            raise zlib.error("cut off")
        body = member.unused_data
        if not body:
            return bytes(found)
