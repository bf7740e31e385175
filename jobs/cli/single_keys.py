"""Keys of a terminal, one by one, without Enter. What is typed ahead is not lost, as it would be between prompts.

Linux is tried; macOS has the same calls. The part for Windows is written from the documentation of `msvcrt`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

END_OF_INPUT = "\x04"

if sys.platform == "win32":
    import msvcrt

    @contextlib.contextmanager
    def single_keys() -> Iterator[None]:
        """Let `read_key` get keys within the block; a console gives them anyway."""
        yield

    @contextlib.contextmanager
    def whole_lines() -> Iterator[None]:
        """Let lines be typed and edited within the block, inside of one of `single_keys`."""
        yield

    def read_key() -> str:
        """The next key."""
        return msvcrt.getwch()

else:
    import termios
    import tty

    @contextlib.contextmanager
    def single_keys() -> Iterator[None]:
        """Let `read_key` get keys within the block, unechoed. Ctrl-C interrupts as ever."""
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
        tty.setcbreak(fd, termios.TCSADRAIN)
        try:
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    @contextlib.contextmanager
    def whole_lines() -> Iterator[None]:
        """Let lines be typed and edited within the block, inside of one of `single_keys`."""
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
        lines = termios.tcgetattr(fd)
        lines[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(fd, termios.TCSADRAIN, lines)
        try:
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    def read_key() -> str:
        """The next key; `END_OF_INPUT` where the terminal has gone."""
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or END_OF_INPUT
