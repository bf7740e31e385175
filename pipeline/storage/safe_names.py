"""Makes one path component that Linux, macOS and Windows all accept, from any text in any script.

Rules: learn.microsoft.com "Naming Files, Paths, and Namespaces"; CPython's `ntpath.isreserved`.
pathvalidate does most of it and leaves gaps (`CONIN$`, `aux.`, bidirectional overrides, a leading `-`),
which are closed here.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"}) | {
    port + digit for port in ("COM", "LPT") for digit in "0123456789¹²³"
}


@lru_cache(maxsize=256)
def safe_component(text: str, max_bytes: int) -> str:
    """`text` as one folder or file name of at most `max_bytes` UTF-8 bytes; empty if nothing usable is left.

    NFC; control, format, surrogate, private-use and unassigned characters are dropped, blanks and forbidden
    marks become `-`. Never reserved on Windows, never hidden, no leading `-` or `~`, no trailing dot.
    """
    from pathvalidate import sanitize_filename
    from pathvalidate.handler import ReservedNameHandler

    spaced = "".join("-" if character.isspace() else character for character in text)
    visible = "".join(c for c in spaced if unicodedata.category(c) not in _INVISIBLE)
    normal = unicodedata.normalize("NFC", visible)
    # Reserved names are our own business: pathvalidate changes `nul` but not `nul .png`.
    allowed = str(sanitize_filename(normal, "-", "universal", reserved_name_handler=ReservedNameHandler.as_is))
    name = cut_bytes(unicodedata.normalize("NFC", allowed).lstrip(".-~ "), max_bytes)
    name = name.rstrip(". ")
    # In front: `nul_.png` would do, but `nul.x_` is still the device.
    return cut_bytes(f"_{name}", max_bytes).rstrip(". ") if is_reserved(name) else name


def is_reserved(name: str) -> bool:
    """Whether `name` is a device on Windows, whatever its case and extension: `nul.tar.gz` is `NUL`."""
    return name.partition(".")[0].rstrip(" ").upper() in _RESERVED


def cut_bytes(text: str, max_bytes: int) -> str:
    """The longest beginning with at most `max_bytes` UTF-8 bytes that separates no letter from its accents."""
    encoded = text.encode("utf-8")
    if len(encoded) <= max_bytes:
        return text
    cut = len(encoded[:max_bytes].decode("utf-8", errors="ignore"))
    while cut and unicodedata.combining(text[cut]):
        cut -= 1
    return text[:cut]


def excerpt(prompt: str, max_characters: int, max_bytes: int) -> str:
    """The first whole words of a prompt, in lower case and joined by `-`: `beautiful-sunset`.

    Words are runs of letters, accents and digits of any script; weights, tags and punctuation are dropped.
    Empty when the prompt has no word.
    """
    normal = unicodedata.normalize("NFC", prompt[: 20 * max_characters]).lower()
    # A letter's accents and vowel signs are its own (category M); `str.isalnum` would split most Indic
    # words at them.
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in normal).split()
    chosen = ""
    for word in words:
        longer = f"{chosen}-{word}" if chosen else word
        if len(longer) > max_characters or len(longer.encode()) > max_bytes:
            break
        chosen = longer
    if not chosen and words:
        chosen = cut_bytes(words[0][:max_characters], max_bytes)
    return safe_component(chosen, max_bytes)
