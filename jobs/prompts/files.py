"""Prompt files: `.txt`, `.csv` and `.jsonl`, of any length, read as plain data.

    .txt     one prompt per line; blank lines and lines beginning with # are skipped, as is outer white space
    .csv     a header with a column `prompt` or `text`; further columns are the keys of a line; an empty cell
             is unset; cells in quotes may span lines; separated by commas, semicolons or tabs; tags by ; or ,
    .jsonl   a text or a mapping per line, in JSON

A file is read once from end to end and every fault reported with its line. What is kept is a copy of the file, on disk
where it is large, and where each prompt begins, so 100,000 prompts take 2 MB of memory; the prompts are read again
from the copy when they are wanted. Editing or deleting the file while a run goes on changes nothing about the run.
"""

from __future__ import annotations

import csv
import difflib
import json
import shutil
import tempfile
import weakref
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast, overload

from jobs.config.faults import first_faults
from jobs.prompts.lines import PromptLine, PromptSource, keys_fault, read_line
from pipeline.errors import ConfigError, PromptFileError

MAX_LINE_BYTES = 1 << 20
"""A longer line is no prompt, but a file of another kind."""

MAX_COPY_IN_MEMORY_BYTES = 2 << 20
"""A copy that is larger lies in the folder for temporary files, without a name."""

_WHOLE_NUMBERS = {"steps", "width", "height", "clip_skip"}
_BOM = b"\xef\xbb\xbf"
_Record: TypeAlias = "tuple[int, int, object | PromptFileError]"  # first byte, line, item or what is wrong with it


def find_prompt_file(name: str, search: Sequence[Path]) -> Path:
    """The path of a set's `file`: absolute, in one of the folders, or in the working folder."""
    given = Path(name).expanduser()
    if given.suffix.lower() not in _KINDS:
        raise PromptFileError(f"prompts.file: {name}: must be a .txt, .csv or .jsonl file")
    folders = [] if given.is_absolute() else list(dict.fromkeys([*search, Path()]))
    for path in [folder / given for folder in folders] or [given]:
        if path.is_file():
            return path
        if path.exists():
            raise PromptFileError(f"prompts.file: {path}: is a folder or a device; name a .txt, .csv or .jsonl file")
    looked = ", ".join(str(folder.absolute()) for folder in folders) or str(given.parent)
    names = [path.name for folder in folders or [Path()] for path in (folder / given).parent.glob(f"*{given.suffix}")]
    near = difflib.get_close_matches(given.name, names, n=1)
    hint = f"; did you mean {str(Path(name).with_name(near[0]))!r}?" if near else ""
    raise PromptFileError(f"prompts.file: {name}: there is no such file; looked in {looked}{hint}")


def open_prompt_file(path: Path, label: str) -> PromptSource:
    """The prompts of a file, every one checked. `label` is what messages call the file.

    Raises `PromptFileError` with the faults found, the first 20 by name.
    """
    return _KINDS[path.suffix.lower()](path, label)


class _PromptFile(Sequence[PromptLine]):
    """Prompts that stay in their file; a format says how its records are found."""

    def __init__(self, path: Path, label: str) -> None:
        self._label = label
        self._starts, self._lines = array("Q"), array("Q")
        copy = tempfile.SpooledTemporaryFile(MAX_COPY_IN_MEMORY_BYTES)  # noqa: SIM115 it lives as long as the prompts
        self._file = cast(BinaryIO, copy)
        weakref.finalize(self, self._file.close)
        faults: list[str] = []
        try:
            with path.open("rb") as original:
                shutil.copyfileobj(original, self._file)
            self._begin()
            for start, line, item in self._records(*self._first):
                self._starts.append(start)
                self._lines.append(line)
                try:
                    self._read(line, item)
                except ConfigError as error:
                    faults.extend(error.faults)
        except PromptFileError as error:  # nothing after this can be read
            faults.extend(error.faults)
        except OSError as error:
            faults.append(f"{label}: cannot be read, or copied to {tempfile.gettempdir()} ({error.strerror})")
        if faults:
            raise PromptFileError(first_faults(faults))
        if not self._starts:
            raise PromptFileError(f"{label}: holds no prompts; write at least one")

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[PromptLine]:
        for _, line, item in self._records(self._starts[0], self._lines[0]):
            yield self._read(line, item)

    @overload
    def __getitem__(self, index: int) -> PromptLine: ...
    @overload
    def __getitem__(self, index: slice) -> list[PromptLine]: ...
    def __getitem__(self, index: int | slice) -> PromptLine | list[PromptLine]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start, line = self._starts[index], self._lines[index]
        return self._read(line, next(self._records(start, line))[2])

    @abstractmethod
    def _records(self, start: int, line: int) -> Iterator[_Record]:
        """The items from byte `start` on, which is in line `line` (counted from 1)."""

    def _begin(self) -> None:
        """Step over what comes before the first record."""
        self._file.seek(0)
        head = self._file.read(3)
        if not head:
            raise PromptFileError(f"{self._label}: is empty; write at least one prompt")
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise PromptFileError(f"{self._label}: is UTF-16; save it as UTF-8")
        self._first = (3, 1) if head == _BOM else (0, 1)
        self._file.seek(self._first[0])

    def _read(self, line: int, item: object | PromptFileError) -> PromptLine:
        if isinstance(item, PromptFileError):
            raise item
        return read_line(item, f"{self._label}:{line}")

    def _text_lines(self, start: int, line: int) -> Iterator[tuple[int, int, str | PromptFileError]]:
        """First byte, number and text of each line, its end included."""
        while raw := self._line_at(start):
            if len(raw) > MAX_LINE_BYTES:
                raise PromptFileError(
                    f"{self._label}:{line}: is longer than {MAX_LINE_BYTES:,} bytes; is it a prompt file?"
                )
            if b"\0" in raw:
                raise PromptFileError(f"{self._label}:{line}: holds a NUL byte; this is a binary file, not text")
            text: str | PromptFileError
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                byte = f"byte {raw[error.start]:#04x} at position {error.start + 1}"
                text = PromptFileError(f"{self._label}:{line}: is not UTF-8 ({byte}); save it as UTF-8")
            yield start, line, text
            start += len(raw)
            line += 1

    def _line_at(self, start: int) -> bytes:
        self._file.seek(start)  # others may have read elsewhere in the meantime
        return self._file.readline(MAX_LINE_BYTES + 1)


class _TextFile(_PromptFile):
    def _records(self, start: int, line: int) -> Iterator[_Record]:
        for begin, number, text in self._text_lines(start, line):
            if isinstance(text, PromptFileError):
                yield begin, number, text
            elif (prompt := text.strip()) and not prompt.startswith("#"):
                yield begin, number, prompt


class _JsonLinesFile(_PromptFile):
    def _records(self, start: int, line: int) -> Iterator[_Record]:
        for begin, number, text in self._text_lines(start, line):
            if isinstance(text, PromptFileError):
                yield begin, number, text
            elif text.strip():
                yield begin, number, self._parsed(text, number)

    def _parsed(self, text: str, line: int) -> object:
        try:
            return json.loads(text, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            return PromptFileError(f"{self._label}:{line}: is not JSON ({reason}); one text or mapping per line")


class _CsvFile(_PromptFile):
    def _begin(self) -> None:
        super()._begin()
        self._delimiter = ","
        header = self._file.readline(MAX_LINE_BYTES).decode(errors="replace")
        for delimiter in ",;\t":
            columns = next(csv.reader([header.rstrip("\r\n")], delimiter=delimiter), [])
            self._columns = [column.strip().lower() for column in columns]
            if {"prompt", "text"} & set(self._columns):
                self._delimiter = delimiter
                break
        else:
            found = ", ".join(next(csv.reader([header.strip()]), []))[:200]
            raise PromptFileError(
                f"{self._label}:1: has no column prompt or text (columns: {found}); add a header line"
            )
        if fault := keys_fault(self._columns):
            raise PromptFileError(f"{self._label}:1: column {fault}")
        self._first = (self._file.tell(), 2)

    def _records(self, start: int, line: int) -> Iterator[_Record]:
        lines: list[tuple[int, int]] = []  # where the lines of the present row begin

        def texts() -> Iterator[str]:
            for begin, number, text in self._text_lines(start, line):
                if isinstance(text, PromptFileError):
                    raise text
                lines.append((begin, number))
                yield text

        rows = csv.reader(texts(), delimiter=self._delimiter, strict=True)
        while True:
            lines.clear()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise PromptFileError(f"{self._label}:{lines[0][1]}: is not CSV ({error}); check its quotes") from None
            if any(cell.strip() for cell in row):
                yield *lines[0], self._item(row, lines[0][1])

    def _item(self, row: list[str], line: int) -> object:
        if len(row) > len(self._columns):
            return PromptFileError(
                f"{self._label}:{line}: has {len(row)} cells for {len(self._columns)} columns; put a text "
                f"with {self._delimiter!r} in double quotes"
            )
        return {key: _cell(key, cell) for key, cell in zip(self._columns, row, strict=False) if cell.strip()}


def _cell(key: str, cell: str) -> object:
    """A cell as YAML would have read it; what cannot be read so is left for the check to name."""
    try:
        if key in _WHOLE_NUMBERS:
            return int(cell)
        if key == "guidance_scale":
            return float(cell)
        if key in ("seed", "seeds"):
            return [int(part) for part in cell.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        pass
    return cell


_KINDS: dict[str, Callable[[Path, str], _PromptFile]] = {
    ".txt": _TextFile,
    ".csv": _CsvFile,
    ".jsonl": _JsonLinesFile,
}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of two equal keys without a word; that would hide a slip."""
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"has the key {repeated!r} twice")
    return values
