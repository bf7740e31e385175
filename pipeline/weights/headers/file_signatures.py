"""Detects by first bytes what a file really is, for files that are named like weights but are something else."""

from __future__ import annotations

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights; fetch them with git lfs"),
    (b"GGUF", "a GGUF file; give it the ending .gguf"),
    (b"PK\x03\x04", "a zip archive, as PyTorch's pickles are, which can run code when opened; get it as safetensors"),
    *((bytes([0x80, protocol]), "a pickle, which can run code when opened; get it as safetensors")
      for protocol in range(2, 6)),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"RIFF", "a WebP image"),
)  # fmt: skip


def what_it_is(start: bytes) -> str | None:
    """A description of a file that begins so (32 bytes are enough); None if it is not known."""
    for signature, name in _SIGNATURES:
        if start.startswith(signature):
            return name
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "a web page, saved where a download was refused; fetch the file again, logged in if need be"
    if text.startswith((b'{"', b"{'", b"{ ", b"{\n", b"{\r", b"[{", b"{}")):
        return "JSON text, as a server's error message is; fetch the file again"
    return None
