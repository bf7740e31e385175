"""Reindexing: the images give back the manifest, row by row, whatever was lost."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manifest_rows import attempt_of, query
from PIL import Image
from recorded_images import save_image

from jobs.archive.reindex import reindex
from jobs.archive.verify import verify
from jobs.manifest.compaction import compact
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.query import COLUMNS
from jobs.manifest.recovery import recover
from jobs.manifest.schema import FAILED, INTERRUPTED
from pipeline.errors import DiskFull, ReadError
from pipeline.storage.locks import exclusive

ROOT = Path(__file__).parents[3]


def table(output_dir: Path) -> list[tuple[Any, ...]]:
    """Every column of every row that counts, in a fixed order."""
    columns = ", ".join("epoch_us(created_at)" if name == "created_at" else name for name in COLUMNS)
    statement = f"SELECT {columns} FROM images ORDER BY image_id, job_id, attempt"
    return query(output_dir, lambda connection: connection.execute(statement).fetchall())


@pytest.fixture
def mixed_run(tmp_path: Path) -> Path:
    """Every format and profile, failures, an interrupted attempt, several parts."""
    with Journal(tmp_path, seal_rows=3) as journal:
        for n, image_format in enumerate(("png", "jpeg", "webp", "png", "png")):
            save_image(journal, tmp_path, n, image_format=image_format)
            journal.seal_if_due()
        for n, image_format in enumerate(("png", "jpeg", "webp"), start=10):
            save_image(journal, tmp_path, n, image_format=image_format, profile="private", folder="secret")
        save_image(journal, tmp_path, 20, profile="minimal")
        journal.seal_if_due()
        journal.fail([attempt_of(30, status=FAILED, error_kind="bad_pixels", error_message="all black")])
        journal.start([attempt_of(31)])
    return tmp_path


def damage(part: Path) -> None:
    """Its pages, not its footer."""
    content = bytearray(part.read_bytes())
    content[4 : len(content) // 4] = b"\xff" * (len(content) // 4 - 4)
    part.write_bytes(content)


@pytest.mark.parametrize("torn", [False, True])
def test_a_damaged_part_is_found_set_aside_and_its_rows_come_from_the_images(mixed_run: Path, torn: bool) -> None:
    recover(mixed_run)
    before = table(mixed_run)
    part = sorted(Layout(mixed_run).parts.glob("*.parquet"))[0]  # three rows of images that carry their record
    if torn:
        part.write_bytes(part.read_bytes()[:-9])
    else:
        damage(part)
    assert [str(part) in line for line in verify(mixed_run).unreadable_parts] == [True]
    merged = compact(mixed_run)
    assert merged.parts_after < merged.parts_before and part.exists()
    assert merged.damaged == () if torn else str(part) in merged.damaged[0]

    result = reindex(mixed_run)
    assert result.added == 3
    assert [str(part) in line for line in result.set_aside] == [True]
    assert part.with_suffix(".damaged").exists() and not part.exists()
    assert table(mixed_run) == before
    assert verify(mixed_run).sound


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_a_damaged_picture_stays_known_as_damaged(image_format: str, tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        row = save_image(journal, tmp_path, 1, image_format=image_format)
        save_image(journal, tmp_path, 2)
    path = tmp_path / str(row["path"])
    with Image.open(path) as picture:
        other = Image.fromarray(255 - np.asarray(picture))
    chunks, _, end = path.read_bytes().partition(b"IDAT" if image_format == "png" else b"\xff\xdb")
    if image_format == "png":
        recoded = io.BytesIO()
        other.save(recoded, "png")
        path.write_bytes(chunks[:-4] + _after(recoded.getvalue(), b"IDAT"))
    else:
        path.write_bytes(chunks + b"\xff\xdb" + end[:-40] + bytes(byte ^ 1 for byte in end[-40:-20]) + end[-20:])
    assert verify(tmp_path).changed == (row["path"],)
    for _ in range(2):
        result = reindex(tmp_path)
        assert [row["path"] in line for line in result.unreadable] == [True]
        assert verify(tmp_path).changed == (row["path"],)


def test_other_metadata_in_a_sound_picture_is_taken_in(tmp_path: Path) -> None:
    """What a program for photographs writes into a file makes it no damaged one: the pixels decide."""
    with Journal(tmp_path) as journal:
        row = save_image(journal, tmp_path, 1)
    path = tmp_path / str(row["path"])
    content = path.read_bytes()
    note = b"tEXtComment\0a note"
    chunk = struct.pack(">I", len(note) - 4) + note + struct.pack(">I", zlib.crc32(note))
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + chunk + content[place:])
    assert verify(tmp_path).changed == (row["path"],)
    assert reindex(tmp_path).unreadable == []
    assert verify(tmp_path).sound


def _after(content: bytes, chunk: bytes) -> bytes:
    """From the length of a PNG's chunk on."""
    return content[content.index(chunk) - 4 :]


def test_the_rebuilt_manifest_equals_the_old_one(mixed_run: Path) -> None:
    before = table(mixed_run)
    assert len(before) == 11
    result = reindex(mixed_run)
    assert table(mixed_run) == before
    assert (result.rebuilt, result.added, result.kept, result.dropped, result.unreadable) == (6, 0, 5, 0, [])
    reindex(mixed_run)
    assert table(mixed_run) == before
    assert verify(mixed_run).sound


def test_a_lost_manifest_comes_back_from_the_images(mixed_run: Path) -> None:
    before = table(mixed_run)
    shutil.rmtree(Layout(mixed_run).root)
    result = reindex(mixed_run)
    assert (result.rebuilt, result.added, result.kept) == (6, 6, 0)
    private_or_failed = {"secret", INTERRUPTED, FAILED}
    path, status = COLUMNS.index("path"), COLUMNS.index("status")
    expected = [row for row in before if not {str(row[path]).split("/")[0], row[status]} & private_or_failed]
    assert table(mixed_run) == expected


def test_orphans_are_taken_in_and_rows_of_deleted_images_go(mixed_run: Path) -> None:
    before = table(mixed_run)
    kept = mixed_run / "study/0003.png"
    content = kept.read_bytes()
    kept.unlink()
    (mixed_run / "secret/0010.png").unlink()
    result = reindex(mixed_run)
    assert (result.dropped, len(table(mixed_run))) == (2, len(before) - 2)
    kept.write_bytes(content)
    result = reindex(mixed_run)
    assert (result.added, len(table(mixed_run))) == (1, len(before) - 1)


def test_moved_images_are_followed_private_ones_by_their_hash(mixed_run: Path) -> None:
    before = {row[COLUMNS.index("image_id")] for row in table(mixed_run)}
    (mixed_run / "moved").mkdir()
    for old in ("study/0001.jpeg", "secret/0011.jpeg"):
        (mixed_run / old).rename(mixed_run / "moved" / Path(old).name)
    result = reindex(mixed_run)
    assert result.dropped == 0
    assert {row[COLUMNS.index("image_id")] for row in table(mixed_run)} == before
    assert verify(mixed_run).sound


@pytest.mark.parametrize("names", [("study/0000.png", "study/0003.png"), ("secret/0010.png", "secret/0011.jpeg")])
def test_two_images_that_swapped_names_get_the_right_rows(names: tuple[str, str], mixed_run: Path) -> None:
    first, second, aside = (mixed_run / name for name in (*names, "aside"))
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert len(verify(mixed_run).changed) == 2
    reindex(mixed_run)
    assert verify(mixed_run).sound
    assert len(table(mixed_run)) == 11


def test_a_copy_is_not_a_second_image(mixed_run: Path) -> None:
    before = table(mixed_run)
    for name in ("0000_copy.png", "a_copy.png"):
        shutil.copy(mixed_run / "study/0000.png", mixed_run / "study" / name)
    reindex(mixed_run)
    assert table(mixed_run) == before


def test_damaged_and_foreign_images_cost_no_row(mixed_run: Path) -> None:
    before = table(mixed_run)
    damaged = mixed_run / "study/0000.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (mixed_run / "study/text.png").write_text("no image")
    result = reindex(mixed_run)
    assert len(result.unreadable) == 2
    assert table(mixed_run) == before
    assert verify(mixed_run).changed == ("study/0000.png",)


def test_a_run_that_is_alive_keeps_its_rows(mixed_run: Path) -> None:
    with Journal(mixed_run, seal_rows=1) as journal:
        save_image(journal, mixed_run, 40)
        journal.seal_if_due()
        save_image(journal, mixed_run, 41)
        before = table(mixed_run)
        reindex(mixed_run)
        assert table(mixed_run) == before
        save_image(journal, mixed_run, 42)
    assert len(table(mixed_run)) == len(before) + 1
    assert verify(mixed_run).sound


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_compaction_temporary", "after_compaction_record", "after_compaction_delete"])
def test_a_kill_leaves_the_old_or_the_new_manifest(point: str, mixed_run: Path) -> None:
    before = table(mixed_run)
    run = subprocess.run(
        [sys.executable, "-m", "jobs", "reindex", "--output-dir", str(mixed_run)],
        cwd=ROOT,
        env={**os.environ, "DARKROOM_CRASH_AT": point},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    assert table(mixed_run) == before
    recover(mixed_run)
    assert table(mixed_run) == before


def test_a_full_disk_leaves_the_old_manifest(mixed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table(mixed_run)

    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskFull):
        reindex(mixed_run)
    monkeypatch.undo()
    assert table(mixed_run) == before
    assert list(Layout(mixed_run).parts.glob(".*")) == []


def test_not_beside_a_compaction_and_not_without_a_folder(mixed_run: Path) -> None:
    with exclusive(Layout(mixed_run).compaction_lock, wait=False), pytest.raises(ReadError, match="is running here"):
        reindex(mixed_run)
    with pytest.raises(ReadError, match="no such folder"):
        reindex(mixed_run / "nowhere")
