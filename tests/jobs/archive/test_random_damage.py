"""Bytes damaged at random in every file of an output folder: nothing else is lost, and everything still runs."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from manifest_rows import query

from jobs.archive.reindex import reindex
from jobs.archive.show import as_json, as_lines, describe
from jobs.archive.verify import verify
from jobs.manifest.compaction import compact
from jobs.manifest.job_states import read_states
from jobs.manifest.output_files import file_sha256, is_image
from jobs.manifest.parts import read_part
from jobs.manifest.recovery import recover
from jobs.manifest.schema import DONE
from jobs.manifest.snapshot import take_snapshot
from pipeline.errors import DarkroomError

KEPT = Path(__file__).parents[2] / "data" / "kept" / "outputs"

PARTS = sorted(path.relative_to(KEPT).as_posix() for path in (KEPT / "manifest" / "parts").iterdir())
JOURNALS = sorted(path.relative_to(KEPT).as_posix() for path in (KEPT / "manifest" / "journal").iterdir())
IMAGES = sorted(path.relative_to(KEPT).as_posix() for path in KEPT.rglob("*") if is_image(path))


def flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 20))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def zeroed(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    length = min(chance.randrange(1, 512), len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def shifted(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + chance.randbytes(chance.randrange(1, 64)) + content[start:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, zeroed, shifted)


def damage(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.choice(DAMAGES)(path.read_bytes(), chance))


def rows_of(output_dir: Path) -> Counter[tuple[str, str]]:
    """Path and hash of every image that has a row."""
    done = f"SELECT path, file_sha256 FROM images WHERE status = '{DONE}'"
    return Counter(query(output_dir, lambda connection: connection.execute(done).fetchall()))


def assert_whole(output_dir: Path, damaged: str) -> None:
    """Whatever became of one file, all images but that one have one row, are found, shown and verified.

    An image without a record has its row nowhere but in its part.
    """
    without_record = [name for name in IMAGES if name.startswith("unnamed/") and damaged in PARTS]
    sound = {name: file_sha256(output_dir / name) for name in IMAGES if name not in (damaged, *without_record)}
    recover(output_dir)
    read_states(output_dir)
    verify(output_dir)
    reindex(output_dir)
    compact(output_dir)
    rows = rows_of(output_dir)
    assert set(rows.values()) <= {1}
    assert sound.items() <= dict(iter(rows)).items()
    snapshot = take_snapshot(output_dir)
    assert all(read_part(part).num_rows for part in snapshot.parts)
    assert [path for path, _ in snapshot.refused] in ([], [output_dir / damaged])
    for name, digest in sound.items():
        assert file_sha256(output_dir / name) == digest
    found = verify(output_dir)
    assert {*found.missing, *found.changed, *found.without_row} <= {damaged, *without_record}
    if damaged in IMAGES:
        assert (output_dir / damaged).exists()
        try:
            description = describe(output_dir / damaged, output_dir)
            assert as_json(description, {}) and as_lines(description, {})
        except DarkroomError as error:
            assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("damaged", [PARTS[0], PARTS[-1], *JOURNALS, IMAGES[0], IMAGES[-1]])
def test_damage_in_one_file_costs_no_other(damaged: str, tmp_path: Path) -> None:
    output_dir = shutil.copytree(KEPT, tmp_path / "outputs")
    damage(output_dir / damaged, random.Random(damaged))
    assert_whole(output_dir, damaged)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("damaged", [*PARTS, *JOURNALS, *IMAGES])
def test_damage_in_any_file_costs_no_other(damaged: str, seed: int, tmp_path: Path) -> None:
    output_dir = shutil.copytree(KEPT, tmp_path / "outputs")
    damage(output_dir / damaged, random.Random(f"{damaged} {seed}"))
    assert_whole(output_dir, damaged)
