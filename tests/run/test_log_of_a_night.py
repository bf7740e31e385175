"""A night leaves a log: what happened to a run is told by `run.log`, to somebody who was asleep."""

from __future__ import annotations

import getpass
import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import Batch
from test_failures import KEY

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING|ERROR) (.+)")
LONG = ("seeds={start: 0, count: 200}", "sampling.steps=200")


def events_of(batch: Batch) -> list[tuple[str, str]]:
    """Level and text of every line of the newest run's log; each is whole."""
    path = max(batch.output_dir.glob("runs/*/run.log"), key=lambda path: path.stat().st_mtime_ns)
    matches = [LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(matches), path.read_text(encoding="utf-8")
    return [(match[1], match[2]) for match in matches if match]


def told_in_order(events: list[tuple[str, str]], *expected: tuple[str, str]) -> None:
    """Each expected level and pattern is found, behind the one before."""
    waiting = iter(events)
    for level, pattern in expected:
        assert any(one == level and re.search(pattern, text) for one, text in waiting), (level, pattern, events)


@pytest.mark.slow
def test_a_killed_worker_a_refused_prompt_and_less_memory_than_planned_are_told(
    make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    batch = make_batch(["a red house", f"my key is {KEY}", "a blue boat", "a green poison tree"], "seeds=[1,2]")
    fault = {"OUT_OF_MEMORY_ABOVE": "6", "DARKROOM_CRASH_AT": "before_denoise=poison"}
    run = batch.run("batch_size=4", env={**fault, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert run.code == 3, run.err

    events = events_of(batch)
    told_in_order(
        events,
        ("INFO", r"run \S+ started: darkroom \S+ on cpu: 6 of 8 images to make .* 2 refused"),
        ("INFO", r"command: python run\.py .*prompts=mine .*batch_size=4"),
        ("INFO", r"plan: sd +\d+x\d+ +batch 4"),
        ("ERROR", r"refused: prompt 2 of mine, 2 images"),
        ("INFO", "worker 1 starts"),
        ("INFO", r"model sd loaded in \S+ s: .* float32, everything resident"),
        ("WARNING", r"out of memory while denoising sd \d+x\d+, batch 4: falls back to batch 2 \(CUDA out"),
        ("WARNING", r"worker \d was lost: killed by SIGKILL"),
        ("WARNING", r"lose an attempt and are tried again alone: [0-9a-f]{8}"),
        ("ERROR", r"job [0-9a-f]{8} failed \(quarantined, attempt 3\): prompt 4 of mine, seed \d: its process died 3"),
        ("INFO", r"run ended with code 3: 4 made, 4 failed \(2 leak, 2 quarantined\), .* 0 left"),
    )
    told_in_order(events, ("INFO", r"sd \d+x\d+: recorded for later runs that it needed batch 2"))

    kept = b"".join(path.read_bytes() for path in batch.output_dir.glob("runs/*/*"))
    telling = [KEY, str(batch.folder), socket.gethostname()] + [getpass.getuser()] * (getpass.getuser() != "root")
    assert not [word for word in telling if word.encode() in kept]

    again = batch.run("batch_size=4", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert again.code == 3
    told_in_order(events_of(batch), ("INFO", "0 of 8 images to make .4 there already, 4 failed before"))


@pytest.mark.slow
def test_the_batch_is_there_from_the_start_and_a_stop_is_told(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], *LONG, "batch_size=2")
    run = batch.start()
    batch.wait_for_images(run, 1)
    (written,) = batch.output_dir.glob("runs/*/batch.yaml")
    composed = list(yaml.safe_load_all(written.read_text()))
    assert composed[0]["prompts"]["lines"] == ["a red house"] and not batch.summaries()

    run.signal(signal.SIGTERM)
    assert run.wait().code == 4
    told_in_order(
        events_of(batch),
        ("ERROR", "the run stops: stopped by SIGTERM"),
        ("INFO", r"run ended with code 4: \d+ made, 0 failed, .* \d+ left"),
        ("INFO", "the same command makes the rest"),
    )
    (summary,) = batch.summaries()
    assert summary["stop_kind"] == "signal" and summary["left"] == 200 - summary["made"]


def bundles_of(batch: Batch) -> list[dict[str, Any]]:
    (path,) = batch.output_dir.glob("runs/*/metrics.jsonl")
    return [line for text in path.read_text().splitlines() if (line := json.loads(text))["kind"] == "bundle"]


@pytest.mark.slow
def test_every_bundle_leaves_its_figures(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], "seeds={start: 0, count: 10}", "batch_size=2", "bundle_images=4")
    assert batch.run(env={"OUT_OF_MEMORY_ABOVE": "2", "XDG_CACHE_HOME": str(batch.folder / "cache")}).code == 0
    bundles = bundles_of(batch)
    assert [line["images"] for line in bundles] == [4, 4, 2]
    assert [line["batch_sizes"] for line in bundles] == [[1] * 4, [1] * 4, [1] * 2]  # as memory allowed
    first, last = bundles[0], bundles[-1]
    assert (first["model"], first["width"], first["device"]) == ("sd", 32, "cpu") and first["failures"] == 0
    assert first["seconds"]["load"] > 0 and all(line["seconds"]["load"] == 0 for line in bundles[1:])
    assert all(line["seconds"][phase] > 0 for line in bundles for phase in ("encode", "denoise", "decode")[1:])
    assert first["images_per_second"] > 0 and first["peak_rss_bytes"] > 2**20
    assert last["made"] + last["queue"] == 10 and last["time"].endswith("+00:00")


@pytest.mark.slow
def test_a_bundle_that_fails_is_counted(make_batch: Callable[..., Batch], tiny_models: Path) -> None:
    batch = make_batch(["a red house"], "seeds={start: 0, count: 3}", model=tiny_models / "sd_nan")
    assert batch.run().code == 3
    (line,) = bundles_of(batch)
    assert (line["images"], line["failures"], line["images_per_second"]) == (0, 3, None)


@pytest.mark.slow
def test_a_program_is_started_at_the_end_and_its_fault_changes_nothing(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    script = batch.folder / "notify.sh"
    script.write_text('#!/bin/sh\necho "$1 $DARKROOM_MADE $DARKROOM_FAILED" >> "$0.txt"\n'
                      'grep -q made "$DARKROOM_SUMMARY" && ls "$DARKROOM_SUMMARY"\nexit $DARKROOM_MADE\n')  # fmt: skip
    script.chmod(0o755)
    on_end = f"on_end=[{script},topic-of-mine]"
    assert batch.run(on_end, "dry_run=true").code == 0 and not script.with_suffix(".sh.txt").exists()
    run = batch.run(on_end)
    assert run.code == 0 and "on_end: notify.sh ended with code 2" in run.err
    assert "summary.json" in run.err and "summary.json" not in run.out
    assert batch.run(on_end).code == 0
    assert script.with_suffix(".sh.txt").read_text().splitlines() == ["topic-of-mine 2 0", "topic-of-mine 0 0"]
    told_in_order(events_of(batch), ("INFO", "run ended with code 0"), ("INFO", "on_end: notify.sh ended well"))
    kept = b"".join(path.read_bytes() for path in batch.output_dir.rglob("*") if path.is_file())
    assert b"topic-of-mine" not in kept and b"on_end=REMOVED" in kept


@pytest.mark.slow
def test_prompts_of_private_images_stay_out(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], "metadata=private", "prompts.lines=[a violet dragon]")
    assert batch.run().code == 0
    text = " ".join(text for _, text in events_of(batch))
    assert "dragon" not in text and "prompts.lines=REMOVED" in text and "prompts=mine" in text


def test_a_log_that_cannot_be_written_costs_nothing_else(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    batch.output_dir.mkdir()
    (batch.output_dir / "runs").write_text("no folder")
    run = batch.run()
    assert (len(batch.images()), run.code) == (2, 0), run.err
    assert "run.log: " in run.err and "metrics.jsonl: " in run.err and "Traceback" not in run.err
    assert run.err.count("lines of it are lost: ") == 2


@pytest.mark.slow
def test_what_libraries_say_is_told_and_not_printed(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], model="demo")
    run = batch.run()
    assert run.code == 0 and "diffusers" not in run.err
    told_in_order(events_of(batch), ("WARNING", "^diffusers: "))
