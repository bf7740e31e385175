"""`python -m benchmarks` measures everything that it promises; how fast is not a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import MISSED, NOT_MEASURED, OK, Row, peak_rss_bytes, ratio_of_pairs
from benchmarks.report import as_markdown, quantity

ROOT = Path(__file__).resolve().parent.parent

KEYS = {
    "startup.help", "startup.search", "startup.dry_run",
    "planning.seeds.100000.seconds", "planning.seeds.100000.memory",
    "planning.file.100000.seconds", "planning.file.100000.memory",
    "planning.seeds.1000000.seconds", "planning.seeds.1000000.memory",
    "planning.file.1000000.seconds", "planning.file.1000000.memory",
    "resume.seconds", "resume.dry_run", "resume.command",
    "overhead.main_thread", "overhead.saver", "overhead.end",
    "batches.singly.generation", "batches.singly.whole", "batches.batched.generation", "batches.batched.whole",
    "batches.per_image",
    "models.loads", "models.memory",
    "searching.model_steps", "searching.words", "searching.rare_word",
    "journal.append", "journal.against_disk", "journal.processes",
    "gpu.images",
}  # fmt: skip


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_quick_run_has_every_row_in_the_table_the_json_and_the_markdown(tmp_path: Path) -> None:
    done = benchmarks("--quick", "--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md"))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert {row["key"] for row in document["rows"]} == KEYS
    assert {row["key"] for row in document["rows"] if row["measured"] is None} <= {"gpu.images"}
    table = (tmp_path / "b.md").read_text(encoding="utf-8")
    for row in document["rows"]:
        assert row["what"] in done.stdout
        assert row["what"] in table
    assert document["quick"] is True
    assert {"cpu", "cores", "ram_bytes", "gpu", "versions"} <= set(document["machine"])
    assert str(Path.home()) not in json.dumps(document) and str(ROOT) not in json.dumps(document)
    assert not list((ROOT / "outputs" / "benchmarks").glob(".work-*"))


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    done = benchmarks("startpu")
    assert done.returncode == 2
    assert "startpu" in done.stderr and "startup" in done.stderr


def test_a_row_knows_whether_its_promise_is_kept() -> None:
    assert Row("k", "w", 2.0, "s", 4.0).verdict == OK
    assert Row("k", "w", 5.0, "s", 4.0).verdict == MISSED
    assert Row("k", "w", 5.0, "s").verdict == ""
    assert Row("k", "w", None, "s", 4.0, "no GPU here").verdict == NOT_MEASURED
    assert Row("k", "w", 2.0, "s", 4.0).ratio == 0.5


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was ten times slower in the second round; that must not show.
    assert ratio_of_pairs([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 0.5


def test_quantities_are_short() -> None:
    assert quantity(0.04213, "s") == "0.0421 s"
    assert quantity(1234567.0, "B") == "1,234,567 B"
    assert quantity(2.0, "") == "2"
    assert quantity(None, "s") == "-"


def test_peak_memory_is_this_process_own() -> None:
    assert 10**6 < peak_rss_bytes() < 10**11


def test_markdown_cells_cannot_break_the_table() -> None:
    from datetime import UTC, datetime

    facts = {"cpu": "c", "cores": 2, "ram_bytes": 2**30, "gpu": None, "load_before": 0.0, "versions": {"python": "3"}}
    text = as_markdown([Row("k", "a | b", 1.0, "s")], facts, datetime.now(UTC), quick=False)
    assert "| a / b | 1 s |" in text
