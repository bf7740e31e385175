"""Text on sheets: wrapped by its measured width, never cut, in the font of Pillow's or in one of the user's."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from jobs.terminal import printable
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    _Font: TypeAlias = FreeTypeFont | ImageFont

PAPER, INK, FAINT = "#ffffff", "#1f2328", "#6e7781"
LINE = 1.35
"""The height of a line, in sizes of the font."""

_ELSEWHERE = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "msyh.ttc", "msgothic.ttc", "PingFang.ttc", "NotoSansArabic-Regular.ttf"),
)
"""Fonts of Linux, Windows and macOS for what the font that comes with Pillow lacks: it has little but ASCII."""


def _lacking(font: _Font, text: str) -> int:
    """How many letters of a text a font draws as its box."""
    box = bytes(font.getmask("\U0010fffd"))
    return sum(not letter.isspace() and bytes(font.getmask(letter)) == box for letter in {*text})


class Lettering:
    """Text of one size in pixels. What the font lacks is taken from fonts of this machine, or drawn as a box.

    `font` is a file that takes the place of Pillow's.

    Raises `ConfigError` for a file that is no font.
    """

    def __init__(self, size: int, font: Path | None = None) -> None:
        import PIL.ImageFont

        self.size = size
        self.line_height = round(size * LINE)
        try:
            own: _Font = PIL.ImageFont.truetype(str(font), size) if font else PIL.ImageFont.load_default(size)
        except OSError:
            raise ConfigError(f"--font {font}: cannot be read as a font; expected a .ttf or .otf file") from None
        self._own = own
        self._width = lru_cache(maxsize=10_000)(lambda text: self._font_of(text).getlength(text))

    def width(self, text: str) -> int:
        """In pixels."""
        return round(self._width(text) + 0.5)

    def wrapped(self, text: str, width: int, max_lines: int | None = None) -> list[str]:
        """Lines no wider than that; a word that is wider itself is broken. Beyond `max_lines` it ends in `...`."""
        lines: list[str] = []
        for paragraph in printable(text).splitlines() or [""]:
            line = ""
            for word in paragraph.replace("\t", " ").split(" "):
                longer = f"{line} {word}" if line else word
                if self.width(longer) <= width:
                    line = longer
                    continue
                if line:
                    lines.append(line)
                *whole, line = self._broken(word, width)
                lines += whole
                if max_lines is not None and len(lines) > max_lines:
                    break
            lines.append(line)
            if max_lines is not None and len(lines) > max_lines:
                break
        if max_lines is None or len(lines) <= max_lines:
            return lines
        last = lines[max_lines - 1]
        while last and self.width(f"{last} ...") > width:
            last = last[:-1]
        return [*lines[: max_lines - 1], f"{last.rstrip()} ..."]

    def draw(self, draw: ImageDraw, x: int, y: int, lines: list[str], fill: str = INK) -> int:
        """Draw lines below each other; returns where the next one would begin."""
        for line in lines:
            draw.text((x, y), line, fill, self._font_of(line))
            y += self.line_height
        return y

    def height(self, lines: list[str]) -> int:
        """In pixels."""
        return len(lines) * self.line_height

    def _font_of(self, text: str) -> _Font:
        """The first font that has all letters, else the one that lacks the fewest."""
        if text.isascii():
            return self._own
        return min(self._fonts, key=lambda font: _lacking(font, text))

    @cached_property
    def _fonts(self) -> list[_Font]:
        import PIL.ImageFont

        found = [self._own]
        for name in _ELSEWHERE:
            with suppress(OSError):
                found.append(PIL.ImageFont.truetype(name, self.size))
        return found

    def _broken(self, word: str, width: int) -> list[str]:
        parts, part = [], ""
        for letter in word:
            if part and self.width(part + letter) > width:
                parts.append(part)
                part = ""
            part += letter
        return [*parts, part]
