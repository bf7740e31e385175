"""Caches in SQLite files: what cannot be read is not known, what cannot be written is not kept, and nothing stops."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.storage.sqlite_files import CacheFile, connect

TABLE = "things (name TEXT PRIMARY KEY, count INTEGER)"
INSERT = "INSERT OR REPLACE INTO things VALUES (?, ?)"
ALL = "SELECT * FROM things ORDER BY name"


@pytest.fixture
def cache(tmp_path: Path) -> CacheFile:
    return CacheFile(tmp_path / "deep" / "cache.sqlite", TABLE, busy_s=0.05)


def test_changes_are_kept_together_or_not_at_all(cache: CacheFile) -> None:
    assert cache.rows(ALL) == []
    cache.change((INSERT, ("a", 1)), (INSERT, ("b", 2)))
    cache.change((INSERT, ("c", 3)), ("INSERT INTO nowhere VALUES (1)", ()))
    assert cache.rows(ALL) == [("a", 1), ("b", 2)]


def test_a_damaged_file_knows_nothing_and_is_replaced(cache: CacheFile, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "cache.sqlite").write_bytes(b"no database, but long enough to be looked at" * 100)
    assert cache.rows(ALL) == []
    cache.change((INSERT, ("a", 1)))
    assert cache.rows(ALL) == [("a", 1)]


def test_damage_that_only_reading_comes_upon_is_replaced_as_well(cache: CacheFile, tmp_path: Path) -> None:
    cache.change(*((INSERT, (f"{number:05}", number)) for number in range(2000)))
    file = tmp_path / "deep" / "cache.sqlite"
    data = bytearray(file.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle : middle + 4096] = bytes(4096)
    file.write_bytes(data)
    assert cache.rows(ALL) == []
    cache.change((INSERT, ("zzz", 1)))
    assert cache.rows(ALL) == [("zzz", 1)]


def test_what_another_process_put_in_the_place_of_a_damaged_file_stays(cache: CacheFile, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "cache.sqlite").write_bytes(b"no database, but long enough to be looked at" * 100)
    assert cache.rows(ALL) == []
    CacheFile(tmp_path / "deep" / "cache.sqlite", TABLE).change((INSERT, ("a", 1)))
    assert cache.rows(ALL) == [("a", 1)]
    cache.change((INSERT, ("b", 2)))
    assert cache.rows(ALL) == [("a", 1), ("b", 2)]


def test_a_file_that_another_process_keeps_locked_stops_nothing(cache: CacheFile, tmp_path: Path) -> None:
    cache.change((INSERT, ("a", 1)))
    with closing(connect(tmp_path / "deep" / "cache.sqlite", busy_s=0)) as other:
        other.execute("BEGIN EXCLUSIVE")
        cache.change((INSERT, ("b", 2)))
        assert cache.rows(ALL) == []
    assert cache.rows(ALL) == [("a", 1)]


def test_a_folder_that_is_a_file_stops_nothing(cache: CacheFile, tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("in the way")
    cache.change((INSERT, ("a", 1)))
    assert cache.rows(ALL) == []


def test_names_that_are_no_unicode_are_not_kept(cache: CacheFile) -> None:
    cache.change((INSERT, ("caf\udce9", 1)))
    assert cache.rows("SELECT * FROM things WHERE name = ?", ("caf\udce9",)) == []


def test_opening_to_read_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "none.sqlite", "mode=ro", busy_s=0)
    assert list(tmp_path.iterdir()) == []
