"""Standard streams of a program that runs overnight: closed, full, or without a reader."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from pipeline.errors import RunStopped

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Within this block, printing never stops the work: what cannot be written to standard error is dropped.

    On standard output, a reader that has seen enough (`head`) ends the program with code 0; what cannot be written for
    another reason is a `RunStopped`.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _text(_Output, sys.stdout), _text(_Messages, sys.stderr)
    try:
        try:
            yield
        except SystemExit:  # as Hydra ends after `--help`; nobody flushes what is forgotten below
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """After `>&-`, the next file to be opened would be standard output, and what is printed would go into it."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


class _Output(io.FileIO):
    """Standard output. After the first failure nothing is written any more, not at the end of the process either."""

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self._failed = True
            raise SystemExit(0) from None
        except OSError as error:
            self._failed = True
            raise RunStopped(f"standard output: cannot be written ({error.strerror})") from error
        except KeyboardInterrupt:  # its reader has not been reading
            self._failed = True
            raise


class _Messages(io.FileIO):
    """Standard error."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text(kind: type[io.FileIO], stream: TextIO) -> TextIO:
    """The same stream, of this kind; what its encoding has no letters for is written as `\\u65e5`."""
    stream.flush()
    raw = kind(stream.fileno(), "w", closefd=False)
    at_once = kind is _Messages or raw.isatty()
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, errors, line_buffering=at_once)
