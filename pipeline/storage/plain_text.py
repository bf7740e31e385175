"""Makes untrusted texts plain: no markup, no scripts, no control characters for a terminal."""

from __future__ import annotations

import html
import re

from pipeline.storage.foreign_names import printable

MOST_CHARACTERS = 20_000
"""So much of a card is kept; the longest that are read by people stay under it."""

_HIDDEN = frozenset(
    {"script", "style", "template", "iframe", "object", "svg", "math", "title", "head", "noscript", "textarea"}
)
_BREAKS = frozenset(
    {"p", "br", "div", "li", "ul", "ol", "tr", "table", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "hr"}
)
_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n.*?\n---\s*(?:\n|\Z)", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]\n]{0,300}\]\([^)\n]{0,1000}\)")
_LINK = re.compile(r"\[([^\[\]\n]{1,300})\]\([^)\n]{0,1000}\)")
# Python's own HTML parser takes minutes for thousands of unfinished tags; this looks at each character once.
_TAG = re.compile(r"(<[A-Za-z/!?][^<>]*>)")
_TAG_NAME = re.compile(r"</?([A-Za-z0-9]+)")
_ROUNDS = 4
"""Texts come escaped several times; what is still escaped then is dropped."""


def plain_text(text: object, longest: int = MOST_CHARACTERS) -> str:
    """The words of an HTML or Markdown text: keeps line breaks, removes everything that could be read as a command.

    Empty for what is no text. What was escaped (`&lt;script&gt;`) is treated like what it stands for.
    """
    if not isinstance(text, str):
        return ""
    words = _FRONT_MATTER.sub("", text[: 5 * longest])
    words = _LINK.sub(r"\1", _PICTURE.sub("", words))
    for _ in range(_ROUNDS):
        stripped = html.unescape(_without_tags(words))
        if stripped == words:
            break
        words = stripped
    words = words.replace("<", "").replace(">", "")
    lines = [" ".join(printable(line).split()) for line in words.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()[:longest].strip()


def _without_tags(text: str) -> str:
    """What stands between tags, but for what is between those whose content is never shown."""
    kept: list[str] = []
    hidden = ""
    for part in _TAG.split(text):
        if not _TAG.fullmatch(part):
            if not hidden:
                kept.append(part)
            continue
        known = _TAG_NAME.match(part)
        name = known[1].lower() if known else ""
        if hidden:
            hidden = "" if name == hidden and part.startswith("</") else hidden
        elif name in _HIDDEN and not part.startswith("</") and not part.endswith("/>"):
            hidden = name
        elif name in _BREAKS:
            kept.append("\n")
    return "".join(kept)
