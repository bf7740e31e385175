"""The main promises of a batch that meets no trouble: made once, found again, extended, described."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from running import REPO, Batch

SWEEP = ("-m", "sampling.steps=2,3", "sampling.guidance_scale=1,4", "seeds=[1,2]")


@pytest.mark.slow
def test_batch_is_made_once_then_extended_then_mended(make_batch: Callable[..., Batch]) -> None:
    lines = ["a red house", {"text": "a blue boat", "tags": ["boat"]}, "a red house"]
    batch = make_batch(lines, "sampling.guidance_scale=4", "seeds=1")

    first = batch.run()
    assert (first.code, first.out.splitlines()[0]) == (0, "3 requested: 2 made, 1 duplicates; model loads: 1")
    assert "2 of 2 images" in first.err and "\r" not in first.err + first.out  # plain lines without a terminal
    batch.assert_whole(2)
    made = batch.acknowledged()

    second = batch.run("engine.device=cpu", env={"PYTHONPROFILEIMPORTTIME": "1"}, fresh=True)
    assert second.code == 0
    assert f"nothing to make: every requested image exists in {batch.output_dir / 'mine'}\n" in second.out
    imported = {line.rpartition("|")[2].strip() for line in second.err.splitlines() if "|" in line}
    assert "pyarrow" in imported and not imported & {"torch", "diffusers", "transformers"}
    batch.assert_whole(2, since=made)

    # A wider sweep is one plan with one load, and makes its new part only: 3 prompts, two of them equal, by 8, less 2.
    third = batch.run(*SWEEP, "quiet=true")
    assert (third.code, third.out, third.err) == (0, "", "")
    batch.assert_whole(16, since=made)
    summary = batch.summaries()[-1]
    expected = {"requested": 24, "duplicates": 8, "skipped": 2, "made": 14, "failed": 0, "exit_code": 0}
    assert {key: summary[key] for key in expected} == expected
    assert summary["model_loads"] == summary["model_loads_minimum"] == 1
    assert summary["seconds_per_phase"]["denoise"] > 0 and summary["peak_rss_bytes"] > 2**20

    assert {path.name for path in batch.output_dir.iterdir()} == {"manifest", "mine", "runs"}

    # Another value of a base parameter makes other jobs of all.
    plan = json.loads(batch.run("sampling.steps=9", "dry_run=json").out)
    assert (plan["requested"], plan["duplicates"], plan["already_done"], plan["to_make"]) == (3, 1, 0, 2)
    renamed = json.loads(batch.run("name=other", "dry_run=json").out)  # the images are where they were made
    assert renamed["already_done_in"] == {"mine": 2}

    _assert_readable_by_others(batch)
    _assert_reports_tell_nothing(batch)

    # Of a deleted image, and of nothing else, another one is made; it shows the same.
    everything = batch.acknowledged()
    deleted = next(row for row in everything.values() if row["prompt"] == "a blue boat" and row["steps"] == 3)
    (batch.output_dir / deleted["path"]).unlink()
    fourth = batch.run(*SWEEP)
    assert (fourth.code, batch.summaries()[-1]["made"]) == (0, 1)
    (again,) = (row for image_id, row in batch.acknowledged().items() if image_id not in everything)
    assert again["job_id"] == deleted["job_id"] and again["pixels_sha256"] == deleted["pixels_sha256"]
    assert len(batch.images()) == 16

    # And all are made again when that is what one asks for.
    fifth = batch.run("resume=false")
    assert (fifth.code, batch.summaries()[-1]["made"], len(batch.images())) == (0, 2, 18)


def _assert_readable_by_others(batch: Batch) -> None:
    import duckdb
    import pandas
    import pyarrow.dataset

    parts = batch.output_dir / "manifest" / "parts"
    expected = {image_id: row["path"] for image_id, row in batch.acknowledged().items()}
    frame = pandas.read_parquet(parts)
    assert dict(zip(frame["image_id"], frame["path"], strict=True)) == expected
    found = duckdb.sql(f"SELECT image_id, path FROM '{parts}/*.parquet' WHERE status = 'done'").fetchall()
    assert dict(found) == expected
    table = pyarrow.dataset.dataset(parts).to_table(columns=["image_id", "tags", "created_at"])
    assert set(table["image_id"].to_pylist()) == set(expected)
    assert ["boat"] in table["tags"].to_pylist() and str(table.schema.field("created_at").type.tz) == "UTC"


def _assert_reports_tell_nothing(batch: Batch) -> None:
    reports = [*(batch.output_dir / "runs").glob("*/*")]
    assert {path.name for path in reports} == {"batch.yaml", "run.log", "metrics.jsonl", "summary.json"}
    assert len(reports) == 11  # one run made nothing, so measured nothing
    telling = [str(batch.folder), str(Path.home()) + "/", socket.gethostname()]
    telling += [getpass.getuser()] if getpass.getuser() != "root" else []
    for path in reports:
        text = path.read_text()
        assert not [word for word in telling if word in text], path.name
        # A command names other folders as the working folder sees them: it could not go on without.
        rest = "".join(line for line in text.splitlines(True) if "python run.py" not in line)
        assert str(REPO) not in rest, path.name
        assert not [word for word in text.split() if word.strip("'\"").startswith("/")], path.name
    composed = list(yaml.safe_load_all((reports[0].parent / "batch.yaml").read_text()))
    assert composed[0]["prompts"]["name"] == "mine" and composed[0]["model"]["source"] == "sd"


@pytest.mark.slow
def test_dry_run_makes_nothing_at_all(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"] * 2, "seeds={start: 0, count: 9}")

    told = batch.run("dry_run=true")
    assert told.code == 0 and told.err == ""
    counts = dict(line.rsplit(maxsplit=1) for line in told.out.splitlines()[:4])
    assert counts == {"requested": "18", "duplicates": "9", "already done": "0", "to make": "9"}
    assert "model loads   1 (minimum 1)" in told.out and "... and 4 more" in told.out

    everything = batch.run("dry_run=true", "verbose=true")
    assert sum("a red house" in line for line in everything.out.splitlines()) == 9

    plan = json.loads(batch.run("dry_run=json").out)
    assert (plan["to_make"], plan["model_loads"], plan["seconds"], len(plan["jobs"])) == (9, 1, None, 5)
    assert not batch.output_dir.exists()


@pytest.mark.slow
def test_plan_knows_what_things_took(make_batch: Callable[..., Batch]) -> None:
    """The other formats, and an estimate from the seconds that were measured."""
    batch = make_batch(["a red house"], "naming=descriptive", "metadata=minimal", "metadata.sidecar=true")
    assert batch.run("output.format=webp").code == 0
    (path,) = batch.images()
    assert path.startswith("mine/") and "_a-red-house_" in path and path.endswith(".webp")
    assert json.loads((batch.output_dir / path).with_suffix(".json").read_text())["prompt"] == "a red house"

    plan = json.loads(batch.run("dry_run=json", "seeds={start: 0, count: 5}").out)
    assert plan["already_done"] == 1 and plan["to_make"] == 4 and plan["seconds"] is not None
