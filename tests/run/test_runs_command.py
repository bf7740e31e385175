"""`darkroom runs` on runs that go on, have ended, were stopped or killed; the command that it names makes the rest."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Ended, ForkedProcess, program
from running import Batch
from test_failures import KEY

LONG = ("seeds={start: 0, count: 8}", "sampling.steps=100", "batch_size=2", "bundle_images=2")


def darkroom(batch: Batch, *arguments: str) -> Ended:
    folder = batch.folder / "darkroom"
    folder.mkdir(exist_ok=True)
    ended = program("darkroom", "runs", *arguments, "--output-dir", batch.output_dir, cwd=folder, folder=folder)
    assert "Traceback" not in ended.err
    return ended


def listed(batch: Batch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(darkroom(batch, "--json").out)
    return rows


def give(batch: Batch, command: str, *more: str) -> Ended:
    """Give a command of a run again, as it stands, in a folder beside the one where it was given."""
    words = shlex.split(command)
    assert words[:2] == ["python", "run.py"]
    folder = batch.folder / "again"
    folder.mkdir(exist_ok=True)
    return program("run.py", *words[2:], *more, cwd=folder, folder=folder)


@pytest.mark.slow
def test_a_run_is_followed_until_it_is_killed_and_its_command_makes_the_rest(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], *LONG)
    run = batch.start()
    batch.wait_for_images(run, 2)
    (row,) = listed(batch)
    assert (row["state"], row["failed"], row["way_on"]) == ("running", 0, []) and 2 <= row["made"] < 8
    assert row["made"] + row["left"] == 8
    assert "it is running; --watch follows it" in darkroom(batch, row["id"][:10]).out

    out, err = batch.folder / "watch.txt", batch.folder / "watch-err.txt"
    watch = ["runs", "--watch", "--output-dir", str(batch.output_dir)]
    watching = ForkedProcess("darkroom", watch, cwd=batch.folder, env={}, out=out, err=err)
    run.until(lambda: "images/s" in out.read_text())
    run.until(lambda: "CPU" in out.read_text() and "worker" in out.read_text())
    run.kill_both()
    assert watching.wait(60) == 0, err.read_text()
    *lines, _ = out.read_text().splitlines()
    assert " of 8 images" in lines[0] and any("images/s" in line and " left, CPU " in line for line in lines)
    assert any("(died)" in line for line in lines)

    (row,) = listed(batch)
    assert row["state"] == "died" and row["command_complete"]
    shown = darkroom(batch, row["id"]).out
    (command,) = row["way_on"]
    assert "makes what is left (" in shown and f"\n    {command}\n" in shown
    done = give(batch, command)
    assert done.code == 0, done.err
    batch.assert_whole(8)
    newest, oldest = listed(batch)
    assert (newest["state"], newest["left"], newest["way_on"]) == ("finished", 0, []) and oldest["id"] == row["id"]
    assert "nothing is left to make" in darkroom(batch, newest["id"]).out
    assert "no run is running here" in darkroom(batch, "--watch").out


@pytest.mark.slow
def test_a_stopped_run_names_why_and_the_way_on(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], *LONG)
    run = batch.start()
    batch.wait_for_images(run, 1)
    run.signal(signal.SIGTERM)
    assert run.wait().code == 4
    (row,) = listed(batch)
    assert row["state"] == "stopped" and row["left"] == 8 - row["made"]
    assert "(stopped: stopped by SIGTERM)" in darkroom(batch, row["id"]).out
    assert give(batch, row["way_on"][0]).code == 0
    batch.assert_whole(8)


@pytest.mark.slow
def test_failures_stand_together_by_cause(make_batch: Callable[..., Batch], tiny_models: Path) -> None:
    lines = ["a red house", f"my key is {KEY}"]
    batch = make_batch(lines, "seeds={start: 0, count: 3}", model=tiny_models / "sd_nan")
    assert batch.run().code == 3
    (row,) = listed(batch)
    assert (row["state"], row["made"], row["failed"], row["left"]) == ("finished", 0, 6, 0)
    (retry,) = row["way_on"]
    assert retry == f"{row['command']} retry_failed=true"
    shown = darkroom(batch, row["id"]).out
    assert "3 x bad_pixels: the model returned NaN" in shown and "3 x leak: the image would carry" in shown
    assert KEY not in shown

    found = json.loads(darkroom(batch, row["id"], "--json").out)
    assert sorted(cause["count"] for cause in found["failures"]) == [3, 3]
    assert found["metrics"]["models"][0]["failures"] == 3 and found["summary"]["exit_code"] == 3
    again = give(batch, retry)
    assert again.code == 3 and "6 failed" in again.out


@pytest.mark.slow
def test_a_lost_manifest_is_made_anew_first(make_batch: Callable[..., Batch]) -> None:
    from jobs.archive.runs import list_runs, ways_on

    batch = make_batch()
    assert batch.run().code == 0
    (path,) = batch.output_dir.glob("runs/*/summary.json")
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({**summary, "stopped": "the manifest is gone", "stop_kind": "manifest_lost", "left": 1}))
    (run,) = list_runs(batch.output_dir)
    first, then = ways_on(run, batch.output_dir)
    assert first.command == f"darkroom reindex --output-dir {batch.output_dir}" and then.command == run.command


@pytest.mark.slow
def test_a_live_run_with_nothing_measured_yet(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], "sampling.steps=900")
    run = batch.start()
    run.until(lambda: list(batch.output_dir.glob("runs/*/batch.yaml")))
    time.sleep(0.05)
    (row,) = listed(batch)
    assert (row["state"], row["made"], row["left"]) == ("running", 0, 1)
    assert "0 made" in darkroom(batch, row["id"]).out
