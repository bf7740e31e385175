"""Files that are whole under their name or absent, and names that never replace a file."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage.durable import publish_new, temporary_file, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(path: Path, content: bytes) -> Path:
    with temporary_file(path) as (temporary, file):
        file.write(content)
    return temporary


def refuse(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_temporary_file_has_its_own_name_and_the_whole_content(tmp_path: Path) -> None:
    temporary = written(tmp_path / "cat.png", b"pixels")
    assert re.fullmatch(r"\.cat\.png\.[0-9a-f]{32}\.tmp", temporary.name)
    assert temporary.parent == tmp_path and temporary.read_bytes() == b"pixels"


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_writing_replaces_a_file_as_a_whole_and_leaves_nothing_else(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "a.json", b"old", mode=mode)
        write_whole(tmp_path / "a.json", b"new", mode=mode)
    finally:
        os.umask(before)
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode & ~0o022


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_whole(tmp_path / "a.json", b"old")
    monkeypatch.setattr(os, failing, refuse(errno.ENOSPC))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_whole(tmp_path / "a.json", b"new")
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_bytes() == b"old"


def test_content_is_on_the_disk_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        asked.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def note_replace(*paths: Any) -> None:
        asked.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_whole(tmp_path / "a.json", b"new")
    assert asked == ["file", "name", "folder"]
    asked.clear()
    write_whole(tmp_path / "a.json", b"newer", sync=False)
    assert asked == ["name"]


def test_an_interrupt_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary_file(tmp_path / "cat.png") as (_, file):
        file.write(b"pix")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_new_name_never_replaces_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    (tmp_path / "cat.png").write_bytes(b"old")
    temporary = written(tmp_path / "cat.png", b"new")
    with pytest.raises(FileExistsError):
        publish_new(temporary, tmp_path / "cat.png")
    assert (tmp_path / "cat.png").read_bytes() == b"old"
    publish_new(temporary, tmp_path / "cat-2.png")
    assert names(tmp_path) == ["cat-2.png", "cat.png"]
    assert (tmp_path / "cat-2.png").read_bytes() == b"new" and (tmp_path / "cat-2.png").stat().st_nlink == 1
