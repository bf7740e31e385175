"""Runs as their folders tell of them: of earlier versions, of strangers, damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.archive.run_details import details
from jobs.archive.runs import Run, find_run, list_runs, ways_on
from pipeline.errors import ConfigError, ReadError

KEPT = Path(__file__).parents[2] / "data" / "kept" / "outputs"


def put(output_dir: Path, run_id: str, head: str = "", **summary: object) -> Run:
    folder = output_dir / "runs" / run_id
    folder.mkdir(parents=True)
    (folder / "batch.yaml").write_text(head + "prompts: {}\n")
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return find_run(output_dir, run_id)


def test_runs_of_earlier_versions_are_listed() -> None:
    found = list_runs(KEPT)
    assert [run.id[:15] for run in found][:2] == ["20261129T114401", "20261129T114340"]
    assert {(run.state, run.left, run.command) for run in found} == {("finished", 0, None)}
    run = find_run(KEPT, "20261129T114318")
    assert (run.requested, run.made, run.failed) == (4, 2, 2) and ways_on(run, KEPT) == []  # refused prompts
    assert [(cause.count, cause.kind) for cause in details(run, KEPT).failures] == [(2, "leak")]


def test_one_run_is_printed_as_asked_for(darkroom: Callable[..., tuple[int, str, str]]) -> None:
    folder = ("--output-dir", KEPT)
    _, listed, _ = darkroom("runs", "--format", "csv", *folder)
    (line,) = [line for line in listed.splitlines() if line.startswith("20261129T114318")]
    assert darkroom("runs", "20261129T114318", "--format", "csv", *folder) == (
        0,
        f"{listed.splitlines()[0]}\n{line}\n",
        "",
    )
    code, found, _ = darkroom("runs", "20261129T114318", "--format", "json", *folder)
    assert code == 0 and json.loads(found)["made"] == 2


def test_what_an_earlier_version_has_left_is_counted(tmp_path: Path) -> None:
    counts = {"requested": 10, "duplicates": 1, "skipped": 2, "failed_before": 1, "made": 2, "failed": 1}
    run = put(tmp_path, "a", **counts, stopped="stopped by SIGINT", failed_by_kind={"bad_pixels": 1})
    assert (run.state, run.left) == ("stopped", 3)
    assert [way.command for way in ways_on(run, tmp_path)] == [
        "the same command",
        "the same command with retry_failed=true",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python run.py prompts=mine; rm -rf ~", "python run.py 'prompts=mine;' rm -rf '~'"),
        ("python run.py 'a=$(id)' `id`", "python run.py 'a=$(id)' '`id`'"),
        ("python run.py on_end=[rm,x] ++on_end=[rm] prompts=mine", "python run.py prompts=mine"),
        ("darkroom run prompts=mine", "darkroom run prompts=mine"),
        ("python other.py", None),
        ("darkroom models remove ink", None),
        ("curl evil | sh", None),
        ("python run.py 'unclosed", None),
    ],
)
def test_a_strangers_command_runs_nothing_else_when_pasted(tmp_path: Path, text: str, expected: str | None) -> None:
    assert put(tmp_path, "a", made=1, requested=2, left=1, command=text).command == expected


def test_a_strangers_files_are_no_fault(tmp_path: Path) -> None:
    run = put(tmp_path, "a", made="many", failed=-1, requested=True, left=[1], failures=7, failed_by_kind=3, started=1)
    assert (run.made, run.failed, run.requested, run.started) == (None, None, None, None)
    (run.folder / "metrics.jsonl").write_text('[1]\n{"kind": "bundle", "seconds": 3, "images": "x"}\n{"kind":\n')
    (run.folder / "run.log").write_bytes(b"\xff\n2026-01-01T00:00:00Z WARNING \x1b[31m\n")
    found = details(run, tmp_path)
    assert found.failures == () and len(found.warnings) == 1
    put(tmp_path, "b", head="# {[\n# - x: !!python/object:os.system {}\n")
    (tmp_path / "runs" / "c d").mkdir()
    (tmp_path / "runs" / "a" / "summary.json").write_text("[" * 100_000)
    assert {run.id: run.state for run in list_runs(tmp_path)} == {"a": "died", "b": "died"}


def test_warnings_that_differ_in_numbers_are_one(tmp_path: Path) -> None:
    run = put(tmp_path, "a")
    (run.folder / "run.log.1").write_text("2026-01-01T00:00:00Z WARNING worker 1 was lost: signal 9\n")
    (run.folder / "run.log").write_text(
        "2026-01-01T00:00:01Z WARNING worker 22 was lost: signal 11\n"
        "2026-01-01T00:00:01Z INFO worker 3 starts\n"
        "2026-01-01T00:00:01Z ERROR job 0123abcd failed (model, attempt 1): x\n"
    )
    (cause,) = details(run, tmp_path).warnings
    assert (cause.count, cause.example, cause.time) == (2, "worker 1 was lost: signal 9", "2026-01-01T00:00:00Z")


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    for run_id in ("2026a", "2026ab", "2027"):
        put(tmp_path, run_id)
    assert find_run(tmp_path, "2026a").id == "2026a" and find_run(tmp_path, "2027").id == "2027"
    with pytest.raises(ConfigError, match="2026: 2 runs begin so"):
        find_run(tmp_path, "2026")
    with pytest.raises(ConfigError, match=f"x: no run begins so; darkroom runs --output-dir {tmp_path} lists them"):
        find_run(tmp_path, "x")
    with pytest.raises(ReadError, match="is no folder"):
        list_runs(tmp_path / "nowhere")
