"""PNG text chunks, inserted before the pixel data, where every reader looks.

Uncompressed throughout: ComfyUI's reader ignores zTXt and does not inflate iTXt. `tEXt` is for plain ASCII,
`iTXt` for all else (its readers decode UTF-8). PNG Specification, Third Edition, section 11.3.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(SIGNATURE) + 4 + 4 + 13 + 4
"""Signature and IHDR chunk, which must come first."""


def chunk(kind: bytes, payload: bytes) -> bytes:
    """One chunk with its length and CRC."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def text_chunk(keyword: str, text: str) -> bytes:
    """`tEXt` for printable ASCII, else `iTXt`."""
    if text.isascii() and text.isprintable():
        return chunk(b"tEXt", keyword.encode("ascii") + b"\x00" + text.encode("ascii"))
    return international_text_chunk(keyword, text)


def international_text_chunk(keyword: str, text: str) -> bytes:
    """`iTXt`: not compressed, no language tag, no translated keyword, UTF-8."""
    return chunk(b"iTXt", keyword.encode("ascii") + b"\x00\x00\x00\x00\x00" + text.encode("utf-8"))


def insert_chunks(png: bytes, chunks: Iterable[bytes]) -> bytes:
    """The same image with `chunks` right after its header, so before the palette and the pixels."""
    return png[:_HEADER_END] + b"".join(chunks) + png[_HEADER_END:]
