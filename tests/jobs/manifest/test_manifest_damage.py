"""Damaged and hostile files in a manifest: what cannot be understood is told and kept aside, and costs nothing else."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_rows import attempt_of, done_of, put_image, query, write_part

from jobs.manifest import events
from jobs.manifest.job_states import job_key, read_states
from jobs.manifest.layout import Layout, is_inside
from jobs.manifest.recovery import recover
from jobs.manifest.schema import FAILED, Row, row_to_json

JOURNAL = "20260101_000000_0123456789ab-0001.jsonl"


def journal_of(output_dir: Path, *lines: bytes) -> Path:
    path = Layout(output_dir).journals / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def done_lines(row: Row) -> list[bytes]:
    return [events.row_line("saving", row), events.done_line(str(row["image_id"]), row["job_id"])]


def event(name: str, **values: Any) -> bytes:
    return json.dumps({"event": name, **values}).encode() + b"\n"


def changed(row: Row, **values: Any) -> dict[str, Any]:
    return {**row_to_json(row), **values}


BAD_LINES = {
    "a flipped bit in a key": events.row_line("failed", attempt_of(5, status=FAILED)).replace(
        b'"attempt"', b'"cttempt"'
    ),
    "a row without fields": event("failed", row={}),
    "a wrong type": event("failed", row=changed(attempt_of(5, status=FAILED), steps="many")),
    "a number too large": event("failed", row=changed(attempt_of(5, status=FAILED), steps=2**40)),
    "a status nobody knows": event("failed", row=changed(attempt_of(5), status="perhaps")),
    "a job that is no hash": event("failed", row=changed(attempt_of(5, status=FAILED), job_id="../x")),
    "no moment": event("failed", row=changed(attempt_of(5, status=FAILED), created_at="yesterday")),
    "a list": b"[1, 2]\n",
    "nested without end": b"[" * 100_000 + b"\n",
    "digits without end": event("failed").replace(b"}", b', "row": ' + b"9" * 6000 + b"}"),
    "no text": b"\xff\xfe\x00\n",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_line_that_cannot_be_understood_costs_nothing_else(
    line: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = done_of(1), done_of(2)
    for row in (first, second):
        put_image(tmp_path, row)
    journal = journal_of(tmp_path, *done_lines(first), line, *done_lines(second))
    before = journal.read_bytes()
    done = {job_key(row["job_id"]) for row in (first, second)}
    with caplog.at_level(logging.WARNING):
        assert len(query(tmp_path, lambda images: images.sql("SELECT image_id FROM images").fetchall())) == 2
        assert read_states(tmp_path).folders.keys() == done
        damaged_lines = events.replay(journal).damaged_lines
        found = recover(tmp_path)
    assert (found.journals, damaged_lines) == (1, 1)
    assert sum(JOURNAL in message for message in caplog.messages) == 1
    assert journal.with_suffix(".damaged").read_bytes() == before and not journal.exists()
    assert any(".damaged" in message for message in caplog.messages)
    assert read_states(tmp_path).folders.keys() == done


def test_a_folder_named_like_a_journal_is_none(tmp_path: Path) -> None:
    put_image(tmp_path, done_of(1))
    write_part(tmp_path, "a", [done_of(1)])
    (Layout(tmp_path).journals / JOURNAL).mkdir(parents=True)
    recover(tmp_path)
    assert read_states(tmp_path).folders.keys() == {job_key(done_of(1)["job_id"])}
    assert query(tmp_path, lambda images: images.sql("SELECT count(*) FROM images").fetchall()) == [(1,)]


OUTSIDE = ["../../victim/bashrc", "/etc/hosts", "a/../../b.png", "a//b.png", "C:/x.png", "a\\..\\b.png", ".", ""]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leads_out_of_the_folder_is_none(path: str, tmp_path: Path) -> None:
    assert not is_inside(path)
    out = tmp_path / "out"
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "bashrc").write_text("mine")
    leftover = victim / ".bashrc.0.tmp"
    leftover.write_text("mine too")
    journal = journal_of(out, event("saving", row=changed(done_of(1), path=path)))
    assert events.replay(journal).damaged_lines == 1
    recover(out)
    assert (victim / "bashrc").read_text() == "mine" and leftover.exists()


def test_a_link_leads_nowhere_either(tmp_path: Path) -> None:
    """An ordinary path, but a folder on its way is a link to somebody else's."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.mkdir()
    leftover = victim / ".1.png.0.tmp"
    leftover.write_text("mine")
    journal_of(out, event("saving", row=changed(done_of(1), path="night/1.png")))
    (out / "night").symlink_to(victim)
    recover(out)
    assert leftover.exists()


RECORDS: dict[str, Callable[[str], bytes]] = {
    "outputs": lambda victim: json.dumps({"inputs": [], "outputs": [victim], "temporaries": ["x.parquet"]}).encode(),
    "inputs": lambda victim: json.dumps({"inputs": [victim], "outputs": [], "temporaries": []}).encode(),
    "temporaries": lambda victim: json.dumps(
        {"inputs": [], "outputs": ["x.parquet"], "temporaries": [victim]}
    ).encode(),
    "lengths": lambda _: json.dumps({"inputs": [], "outputs": ["x.parquet"], "temporaries": []}).encode(),
    "no names": lambda _: b'{"inputs": 7}',
    "no JSON": lambda _: b"\xff",
    "depth": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_a_record_of_merged_parts_touches_nothing_but_parts(record: Callable[[str], bytes], tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("mine")
    put_image(out, done_of(1))
    write_part(out, "a", [done_of(1)])
    log = Layout(out).log
    log.mkdir(exist_ok=True)
    (log / "0.json").write_bytes(record("../../../victim"))
    assert read_states(out).folders.keys() == {job_key(done_of(1)["job_id"])}
    recover(out)
    assert victim.read_text() == "mine"
    assert [path.name for path in log.iterdir()] == ["0.damaged"]
    assert read_states(out).folders.keys() == {job_key(done_of(1)["job_id"])}


@given(line=st.binary(max_size=300), seed=st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_journal_says_it_is_read(line: bytes, seed: int, tmp_path: Path) -> None:
    """Random bytes between good lines, and good lines with some bytes changed at random."""
    chance = random.Random(seed)
    torn = bytearray(b"".join(done_lines(done_of(3))))
    for _ in range(chance.randint(0, 4)):
        torn[chance.randrange(len(torn))] = chance.randrange(256)
    replayed = events.Replay()
    replayed.feed(b"".join([*done_lines(done_of(1)), line, b"\n", bytes(torn), b"\n", *done_lines(done_of(2))]))
    jobs = [row["job_id"] for row in replayed.finished]
    assert {done_of(1)["job_id"], done_of(2)["job_id"]} <= {*jobs}
