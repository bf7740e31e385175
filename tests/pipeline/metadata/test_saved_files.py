"""Files: never torn, never overwritten, nothing left behind, also by several writers at once."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DiskFull, LeakFound, RunStopped
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.reading import read_any, read_id, read_record
from pipeline.metadata.saved_files import next_free, store
from pipeline.metadata.saving import save


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_next_names_are_counted() -> None:
    assert [next_free(Path("a/cat.v1.png"), n).name for n in (1, 2, 10)] == [
        "cat.v1.png",
        "cat.v1-2.png",
        "cat.v1-10.png",
    ]


def test_ten_thousand_images_of_one_name_do_not_wait_for_each_other() -> None:
    made = {next_free(Path("cat.png"), attempt).name for attempt in range(990, 1200)}
    assert len(made) == 210 and all(re.fullmatch(r"cat-(\d{3}|[0-9a-f]{8})\.png", name) for name in made)


@pytest.mark.parametrize("failing", ["fsync", "link"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    monkeypatch.setattr(os, failing, no_space)
    with pytest.raises(DiskFull, match="no space left") as caught:
        store(b"pixels", tmp_path / "cat.png", sidecar=b"{}")
    assert isinstance(caught.value, RunStopped) and "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_really_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"), full.open("wb", buffering=0) as stream:
        stream.write(b"x")
    folder = tmp_path / "unwritable"
    folder.write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"exists|directory"):
        store(b"pixels", folder / "cat.png")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("sidecar", [None, b"{}"])
def test_parallel_writers_of_one_name_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, sidecar: bytes | None
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    contents = [b"%d" % number for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda data: store(data, tmp_path / "cat.png", sidecar and data), contents))
    assert len(set(paths)) == len(contents)
    assert [path.read_bytes() for path in paths] == contents
    if sidecar is not None:
        assert [path.with_suffix(".json").read_bytes() for path in paths] == contents
    assert len(names(tmp_path)) == len(contents) * (1 if sidecar is None else 2)


def test_a_sidecar_never_replaces_another_file(tmp_path: Path) -> None:
    (tmp_path / "cat.json").write_text("notes")
    (tmp_path / "cat-2.png").write_text("a picture")
    path = store(b"pixels", tmp_path / "cat.png", sidecar=b"{}")
    assert path == tmp_path / "cat-3.png"
    assert (tmp_path / "cat.json").read_text() == "notes"
    assert names(tmp_path) == ["cat-2.png", "cat-3.json", "cat-3.png", "cat.json"]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_saving_in_one_call(sample: Callable[..., Any], tmp_path: Path, output_format: str) -> None:
    made = sample("Beautiful sunset", output_format=output_format)
    naming = NamingSettings(scheme="descriptive")
    path = save(made.image, made.record, tmp_path, naming)
    short = made.record.id[:8]
    assert path == tmp_path / "batch1" / f"20250111_143022_beautiful-sunset_{short}.{output_format}"
    again = save(made.image, made.record, tmp_path, naming)
    assert again.stem == f"{path.stem}-2"
    assert read_record(path) == read_record(again) == made.record == read_any(path).record


def test_saving_with_a_sidecar_and_in_private(sample: Callable[..., Any], tmp_path: Path) -> None:
    made = sample("long " * 20_000, output_format="jpeg")
    path = save(made.image, made.record, tmp_path)
    assert path.with_suffix(".json").exists() and read_record(path) == made.record
    private = sample(name=None, profile="private")
    path = save(private.image, private.record, tmp_path, NamingSettings("guid"), MetadataSettings("private"))
    assert path == tmp_path / f"{private.record.id}.png"
    assert read_id(path) == private.record.id


def test_a_leak_writes_nothing(sample: Callable[..., Any], tmp_path: Path) -> None:
    made = sample("see /home/somebody/pictures")
    with pytest.raises(LeakFound):
        save(made.image, made.record, tmp_path)
    assert names(tmp_path) == []
