"""The chunks and segments of a finished image file, without decoding its pixels.

Read by hand rather than through Pillow because a record must be found, and a leak looked for, in exactly
what stands in the file: damaged, oversized and trailing parts included. PNG Third Edition; JPEG ITU-T T.81
annex B; WebP RFC 9649.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import ReadError
from pipeline.metadata.exif import EXIF_PREFIX
from pipeline.metadata.metadata_settings import ImageFormat
from pipeline.metadata.png import SIGNATURE
from pipeline.system.units import size_text

MAX_PIXELS = 89_478_485
"""Where Pillow begins to warn of a decompression bomb; our own images end at 4096 x 4096."""

MAX_PART_BYTES = 4 * 2**20
"""Largest text or metadata part; a record with a prompt of 100 KB needs a tenth."""

_PIXEL_CHUNKS = {"IDAT", "fdAT", "VP8 ", "VP8L", "ALPH", "ANMF"}
_XMP_KEYWORD = "XML:com.adobe.xmp"
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"


@dataclass(frozen=True, slots=True)
class ContainerPart:
    """One chunk (PNG, WebP) or segment (JPEG), or `trailer`: what follows the end of the image. Pixels are
    left empty.
    """

    kind: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Container:
    """A complete image file. Sizes are pixels."""

    format: ImageFormat
    width: int
    height: int
    parts: tuple[ContainerPart, ...]

    def text(self, keyword: str) -> str | None:
        """The uncompressed PNG text under `keyword`; None where there is none."""
        for part in self.parts:
            if self.format == "png" and part.kind in ("tEXt", "iTXt"):
                found, _, rest = part.payload.partition(b"\x00")
                if found == keyword.encode("latin-1"):
                    return _chunk_text(part.kind, rest)
        return None

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""
        if self.format == "png":
            text = self.text(_XMP_KEYWORD)
            return None if text is None else text.encode()
        return self._payload({"jpeg": "APP1", "webp": "XMP "}[self.format], _XMP_PREFIX)

    @property
    def exif(self) -> bytes | None:
        """The TIFF block, without the prefix that JPEG puts before it."""
        return self._payload({"png": "eXIf", "jpeg": "APP1", "webp": "EXIF"}[self.format], EXIF_PREFIX)

    def _payload(self, kind: str, prefix: bytes) -> bytes | None:
        for part in self.parts:
            if part.kind == kind and (self.format != "jpeg" or part.payload.startswith(prefix)):
                return part.payload.removeprefix(prefix)
        return None


def read_container(stream: BinaryIO) -> Container:
    """Read all parts; pixel data is skipped, not loaded.

    Raises `ReadError` for what is no PNG, JPEG or WebP, is cut short, has a damaged or oversized part, or
    declares more pixels than `MAX_PIXELS`. The messages do not name the file: the caller knows it.
    """
    start = stream.read(12)
    stream.seek(0)
    image_format: ImageFormat
    if start.startswith(SIGNATURE):
        image_format, parts = "png", tuple(_png_parts(stream))
    elif start.startswith(b"\xff\xd8\xff"):
        image_format, parts = "jpeg", tuple(_jpeg_parts(stream))
    elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
        image_format, parts = "webp", tuple(_webp_parts(stream))
    else:
        raise ReadError("it is empty" if not start else "it is not a PNG, JPEG or WebP image")
    width, height = _size(image_format, parts)
    if width * height > MAX_PIXELS:
        raise ReadError(f"it declares {width} x {height} pixels, more than {MAX_PIXELS:,} (a decompression bomb)")
    return Container(image_format, width, height, parts)


def _png_parts(stream: BinaryIO) -> Iterator[ContainerPart]:
    stream.seek(len(SIGNATURE))
    kind = ""
    while kind != "IEND":
        length, name = struct.unpack(">I4s", _exactly(stream, 8))
        kind = name.decode("latin-1")
        if kind in _PIXEL_CHUNKS:
            _skip(stream, length + 4)
            yield ContainerPart(kind, b"")
            continue
        payload = _payload(stream, length, kind)
        if struct.unpack(">I", _exactly(stream, 4))[0] != zlib.crc32(name + payload):
            raise ReadError(f"its {kind!r} chunk is damaged (wrong CRC)")
        yield ContainerPart(kind, payload)
    if trailer := stream.read():
        yield ContainerPart("trailer", trailer)


def _jpeg_parts(stream: BinaryIO) -> Iterator[ContainerPart]:
    stream.seek(2)
    while True:
        lead, marker = _exactly(stream, 2)
        while marker == 0xFF:  # fill bytes
            marker = _exactly(stream, 1)[0]
        if lead != 0xFF:
            raise ReadError("its JPEG segments are damaged")
        length = struct.unpack(">H", _exactly(stream, 2))[0]
        yield ContainerPart(_jpeg_name(marker), _payload(stream, length - 2, _jpeg_name(marker)))
        if marker == 0xDA:
            break
    # Inside the scan 0xFF is always followed by 0 or a restart marker, so this can only be the end.
    _, end, trailer = stream.read().partition(b"\xff\xd9")
    if not end:
        raise ReadError("it is truncated (no end of image)")
    if trailer:
        yield ContainerPart("trailer", trailer)


def _webp_parts(stream: BinaryIO) -> Iterator[ContainerPart]:
    stream.seek(4)
    end = struct.unpack("<I", _exactly(stream, 4))[0] + 8
    stream.seek(12)
    while stream.tell() < end:
        name, length = struct.unpack("<4sI", _exactly(stream, 8))
        kind = name.decode("latin-1")
        if kind in _PIXEL_CHUNKS:
            head = _exactly(stream, min(length, 10))  # holds the size of an image without VP8X
            _skip(stream, length - len(head) + length % 2)
            yield ContainerPart(kind, head if kind in ("VP8 ", "VP8L") else b"")
            continue
        payload = _payload(stream, length, kind)
        _exactly(stream, length % 2)
        yield ContainerPart(kind, payload)
    if trailer := stream.read():
        yield ContainerPart("trailer", trailer)


def _size(image_format: ImageFormat, parts: tuple[ContainerPart, ...]) -> tuple[int, int]:
    """Width and height in pixels, from the header that the format demands."""
    for kind, payload in ((part.kind, part.payload) for part in parts):
        if kind == "IHDR" and len(payload) == 13:
            width, height = struct.unpack(">II", payload[:8])
        elif image_format == "jpeg" and kind.startswith("SOF") and len(payload) >= 5:
            height, width = struct.unpack(">HH", payload[1:5])
        elif kind == "VP8X" and len(payload) == 10:
            width, height = (1 + int.from_bytes(payload[at : at + 3], "little") for at in (4, 7))
        elif kind == "VP8L" and len(payload) >= 5:
            bits = int.from_bytes(payload[1:5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == "VP8 " and len(payload) >= 10:
            width, height = (value & 0x3FFF for value in struct.unpack("<HH", payload[6:10]))
        else:
            continue
        return width, height
    raise ReadError("its header is missing")


def _jpeg_name(marker: int) -> str:
    if 0xE0 <= marker <= 0xEF:
        return f"APP{marker - 0xE0}"
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
        return f"SOF{marker - 0xC0}"
    return {0xC4: "DHT", 0xDA: "SOS", 0xDB: "DQT", 0xDD: "DRI", 0xFE: "COM"}.get(marker, f"0x{marker:02X}")


def _chunk_text(kind: str, rest: bytes) -> str | None:
    """The text after the keyword; a compressed iTXt is never ours and is not inflated."""
    if kind == "tEXt":
        return rest.decode("latin-1")
    compressed, _, after = rest[:1], rest[1:2], rest[2:]
    if compressed != b"\x00":
        return None
    try:
        return after.split(b"\x00", 2)[2].decode("utf-8")
    except (IndexError, UnicodeDecodeError) as error:
        raise ReadError("its iTXt chunk is damaged (not UTF-8)") from error


def _payload(stream: BinaryIO, length: int, kind: str) -> bytes:
    if length > MAX_PART_BYTES:
        raise ReadError(f"its {kind!r} part has {size_text(length)}, more than {size_text(MAX_PART_BYTES)}")
    return _exactly(stream, max(length, 0))


def _skip(stream: BinaryIO, count: int) -> None:
    """Move on, making sure that the last byte exists: seeking beyond the end does not fail by itself."""
    if count:
        stream.seek(count - 1, 1)
        _exactly(stream, 1)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ReadError("it is truncated")
    return data
