"""The connection behind `search`: it sees every row that counts, and nothing else of the machine."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_rows import attempt_of, done_of, make, query, write_part

from jobs.manifest import snapshot as snapshot_module
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.query import COLUMNS, open_manifest, stream
from jobs.manifest.schema import FAILED

ROOT = Path(__file__).parents[3]


def count(output_dir: Path) -> int:
    return int(query(output_dir, lambda connection: connection.execute("SELECT count(*) FROM images").fetchall())[0][0])


def test_sealed_and_live_rows_in_one_view(tmp_path: Path) -> None:
    with Journal(tmp_path, seal_rows=2) as journal:
        for n in range(3):
            make(journal, tmp_path, n)
            journal.seal_if_due()
        journal.start([attempt_of(7)])
        journal.intend(done_of(7))
        with open_manifest(tmp_path) as connection:
            rows = connection.execute("SELECT seed, tags, epoch_us(created_at) FROM images ORDER BY seed").fetchall()
    assert [(seed, tags) for seed, tags, _ in rows] == [(n, ["tests"]) for n in range(3)]
    assert [moment - rows[0][2] for *_, moment in rows] == [0, 1_000_000, 2_000_000]


def test_an_empty_manifest_is_an_empty_view(tmp_path: Path) -> None:
    Layout(tmp_path).create()
    with open_manifest(tmp_path) as connection:
        assert connection.view("images").columns == list(COLUMNS)
        assert connection.execute("SELECT * FROM images").fetchall() == []


@pytest.mark.parametrize("others", [0, 1])
def test_a_column_that_old_parts_lack_is_null(others: int, tmp_path: Path) -> None:
    path = write_part(tmp_path, "old", [done_of(1)])
    pq.write_table(pq.read_table(path).drop_columns(["selection", "tags", "seconds"]), path)
    for n in range(others):
        write_part(tmp_path, f"new{n}", [done_of(2 + n)])
    with open_manifest(tmp_path) as connection:
        rows = connection.execute("SELECT seed, seconds, tags, selection FROM images ORDER BY seed").fetchall()
        assert rows == [(1, None, None, None), (2, 1.0, ["tests"], None)][: 1 + others]
        # The type is right although no part has it.
        assert connection.execute("SELECT count(*) FROM images WHERE list_contains(tags, 'x')").fetchall() == [(0,)]


def test_a_column_of_a_newer_version_is_ignored(tmp_path: Path) -> None:
    path = write_part(tmp_path, "new", [done_of(1)])
    pq.write_table(pq.read_table(path).append_column("mood", pa.array(["calm"])), path)
    with open_manifest(tmp_path) as connection:
        assert connection.view("images").columns == list(COLUMNS)


def test_bad_files_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "_warned", set())
    good = write_part(tmp_path, "good", [done_of(1)])
    good.with_name("zero.parquet").write_bytes(b"")
    pq.write_table(pa.table({"a": [1]}), good.with_name("foreign.parquet"))
    # A footer of the right length, with our name in it, but otherwise nonsense.
    content = good.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    good.with_name("scrambled.parquet").write_bytes(content[:start] + b"\xff" * 40 + content[start + 40 :])
    with caplog.at_level(logging.WARNING):
        assert count(tmp_path) == 1
        assert count(tmp_path) == 1
    way_out = f"move it elsewhere, then run darkroom reindex --output-dir {tmp_path}"
    assert sum(message.endswith(way_out) for message in caplog.messages) == 2
    for name in ("zero", "foreign", "scrambled"):
        assert any(f"{name}.parquet" in message for message in caplog.messages), name


def test_names_with_quotes_are_only_names(tmp_path: Path) -> None:
    place = tmp_path / "o'brien; DROP"
    write_part(place, "a", [done_of(1)])
    assert count(place) == 1


def test_a_part_compacted_away_between_opening_and_reading_is_no_error(tmp_path: Path) -> None:
    old = write_part(tmp_path, "old", [done_of(1)])
    tries = 0

    def select(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        nonlocal tries
        tries += 1
        if tries == 1:
            old.rename(old.with_name("merged.parquet"))
        return connection.sql("SELECT count(prompt) FROM images")

    assert [*stream(tmp_path, select)] == [[(1,)]]
    assert tries == 2


FORBIDDEN = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_parquet('{outside}')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT getenv('HOME')",
    "COPY (SELECT 1) TO '{outside}'",
    "COPY (SELECT 1) TO '{part}'",
    "COPY images FROM '/etc/passwd'",
    "EXPORT DATABASE '{folder}'",
    "ATTACH '{folder}/new.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "RESET enable_external_access",
    "PRAGMA threads = 1",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_file_system_and_the_settings_are_closed(statement: str, tmp_path: Path) -> None:
    part = write_part(tmp_path, "a", [done_of(1)])
    outside = write_part(tmp_path / "elsewhere", "b", [done_of(2)])
    before = part.read_bytes(), outside.read_bytes()
    with open_manifest(tmp_path) as connection:
        with pytest.raises(duckdb.Error):
            connection.execute(statement.format(part=part, outside=outside, folder=tmp_path)).fetchall()
        assert connection.execute("SELECT count(*) FROM images").fetchall() == [(1,)]
    assert (part.read_bytes(), outside.read_bytes()) == before


def test_reading_sealed_rows_needs_no_pyarrow(tmp_path: Path) -> None:
    write_part(tmp_path, "a", [done_of(1), attempt_of(2, status=FAILED)])
    program = f"""
import sys
from pathlib import Path
from jobs.archive.search import search
assert len([*search(Path({str(tmp_path)!r}), "house")]) == 1
print([name for name in ("pyarrow", "torch", "pandas", "numpy") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
