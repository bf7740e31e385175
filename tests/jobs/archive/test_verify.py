"""Verifying: what is missing or changed is found, what is not a fault is a note."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from manifest_rows import attempt_of, content_of, done_of, job_id, make, put_image, write_part

from jobs.archive.verify import Verification, verify
from jobs.manifest.journal import Journal
from jobs.manifest.output_files import file_sha256
from jobs.manifest.schema import FAILED
from pipeline.errors import ReadError

SOUND = Verification(0, (), (), (), (), (), ())


def part_with_images(output_dir: Path, *numbers: int) -> None:
    rows = [done_of(n) for n in numbers]
    for row in rows:
        put_image(output_dir, row)
    write_part(output_dir, "a", [*rows, attempt_of(99, status=FAILED)])


def test_all_is_well(tmp_path: Path) -> None:
    part_with_images(tmp_path, 1, 2, 3)
    result = verify(tmp_path)
    assert result == Verification(3, (), (), (), (), (), ())
    assert result.sound


def test_missing_and_changed_images_are_faults(tmp_path: Path) -> None:
    part_with_images(tmp_path, 1, 2, 3)
    (tmp_path / "study/0001.png").unlink()
    content = bytearray(content_of(2))
    content[50] ^= 1
    (tmp_path / "study/0002.png").write_bytes(content)
    result = verify(tmp_path)
    assert (result.missing, result.changed) == (("study/0001.png",), ("study/0002.png",))
    assert not result.sound


def test_a_missing_image_whose_job_was_made_again_is_superseded(tmp_path: Path) -> None:
    part_with_images(tmp_path, 1)
    (tmp_path / "study/0001.png").unlink()
    again = done_of(1, path="study/again.png")
    put_image(tmp_path, again)
    write_part(tmp_path, "b", [again])
    result = verify(tmp_path)
    assert (result.superseded, result.missing, result.sound) == (("study/0001.png",), (), True)


def test_two_lost_images_of_one_job_do_not_excuse_each_other(tmp_path: Path) -> None:
    write_part(tmp_path, "a", [done_of(1), done_of(1, path="study/again.png")])
    assert verify(tmp_path).missing == ("study/0001.png", "study/again.png")


def test_images_without_a_row_and_leftovers_are_notes(tmp_path: Path) -> None:
    part_with_images(tmp_path, 1)
    for name in ("study/extra.webp", "study/notes.txt", "study/.0001.png.123.tmp", "runs/1/shot.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    result = verify(tmp_path)
    assert result.not_taken == ("study/extra.webp (it is not a PNG, JPEG or WebP image)",)
    assert result.leftovers == ("study/.0001.png.123.tmp",)
    assert result.sound


def test_a_live_run_is_verified_without_false_alarms(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 1)
        being_saved = done_of(2)
        journal.intend(being_saved)
        put_image(tmp_path, being_saved)
        result = verify(tmp_path)
        journal.release([job_id(2)])
    assert (result.checked, result.without_row, result.sound) == (1, (), True)


def test_an_unreadable_part_is_a_fault(tmp_path: Path) -> None:
    part_with_images(tmp_path, 1)
    (tmp_path / "manifest/parts/zero.parquet").write_bytes(b"")
    result = verify(tmp_path)
    assert not result.sound
    assert "zero.parquet" in result.unreadable_parts[0]


def test_a_folder_in_an_images_place_counts_as_changed(tmp_path: Path) -> None:
    (tmp_path / "study/0001.png").mkdir(parents=True)
    write_part(tmp_path, "a", [done_of(1)])
    assert verify(tmp_path).changed == ("study/0001.png",)


def test_an_image_that_nobody_may_read_is_not_called_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called changed is deleted and made again."""
    part_with_images(tmp_path, 1, 2)
    sha256_of = file_sha256

    def refused(path: Path) -> str:
        if path.name == "0001.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return sha256_of(path)

    monkeypatch.setattr("jobs.archive.verify.file_sha256", refused)
    result = verify(tmp_path)
    assert (result.unreadable, result.changed, result.missing) == (("study/0001.png (Permission denied)",), (), ())
    assert not result.sound


def test_verifying_changes_nothing_and_needs_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no manifest here"):
        verify(tmp_path)
    assert list(tmp_path.iterdir()) == []
