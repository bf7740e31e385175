"""Checks untrusted names: which may become a relative path below one of our folders, and how they may be printed."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

_LONGEST = 1_000
_LONGEST_PART_BYTES = 200
_ILLEGAL = frozenset('\\:*?"<>|')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def fault_of_name(name: str) -> str | None:
    """Why a relative name (`unet/config.json`) must not become a path; None if it may, on any system.

    Refused are names that leave the folder, names that some system reads in another way, and what cannot be printed.
    """
    if not name or len(name) > _LONGEST:
        return "is empty or too long"
    if not name.isprintable():  # control characters, NUL, directions of writing, halves of characters
        return "has characters that cannot be printed"
    if _ILLEGAL & set(name):
        return "has characters that are not allowed in file names"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "leaves its folder"
        if len(part.encode()) > _LONGEST_PART_BYTES:
            return "is too long"
        if part != part.strip() or part.endswith("."):
            return "begins or ends with a space or a dot"
        if part.partition(".")[0].lower() in _DEVICES:
            return "is the name of a device on Windows"
    return None


def same_file(name: str) -> str:
    """A key that is equal for names that some file system treats as one: ignores case and composed letters."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name))).casefold()


def plain(text: object, longest: int = 200) -> str:
    """An untrusted text as one line of printable characters, cut at `longest`; empty if it is no text."""
    if not isinstance(text, str):
        return ""
    return " ".join(printable(text[: 10 * longest]).split())[:longest].strip()


def printable(text: str) -> str:
    """The text with a space for each character that cannot be printed, line breaks too."""
    if text.isprintable():  # nearly always so, and much faster
        return text
    return "".join(c if c.isprintable() else " " for c in text)
