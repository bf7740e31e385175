"""An output folder of an earlier version (`tests/data/README.md`) is resumed, searched, shown, reproduced, verified."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from forked import program
from running import IMAGE_SUFFIXES

from jobs.manifest.schema import columns
from pipeline.metadata.reading import read_record

pytestmark = pytest.mark.slow

KEPT = Path(__file__).parents[1] / "data" / "kept"

SAME_INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}

NIGHT = ("prompts=night",)
OWN = (
    *("model=custom", "model.source=models/model", "model.name=ink"),
    *("sampling.width=32", "sampling.height=32", "sampling.steps=2"),
)
LORA = ("adapters.loras=[{source: models/ink.safetensors}]", "grid={adapters.loras.0.weight: [0, 0.8]}")
CUT = (*NIGHT, *OWN, "prompts.lines=[a hill at night]", "name=cut", "seeds=[1,2,3,4,5]", "batch_size=1")
COMMANDS = [
    ((*NIGHT, "naming=descriptive", "sampling.steps=3"), 3, 0),
    ((*NIGHT, "naming=descriptive", "sampling.steps=3", "seeds=1", "output.format=jpeg"), 3, 0),
    (("prompts=leaky", *OWN, *LORA, "metadata.sidecar=true"), 2, 2),
    ((*NIGHT, *OWN, "prompts.lines=[a boat by a house]", "init.image=models/start.png", "init.strength=0.6"), 1, 0),
    ((*NIGHT, *OWN, "prompts.lines=[a quiet house]", "metadata=private", "naming=guid", "name=unnamed"), 1, 0),
]
"""The commands that made it, how many of their jobs are done, and how many failed."""


class Kept:
    """A copy in a folder of its own, with the caches and the registry of that time beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = shutil.copytree(KEPT, folder)
        self.outputs = folder / "outputs"
        homes = {"DARKROOM_HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
        self._env = {**os.environ, **SAME_INSTRUCTIONS, **homes}

    def run(self, *overrides: str, code: int = 0) -> str:
        always = ("--config-dir", "conf", "engine.device=cpu", "engine.cpu_threads=1")
        return self._program("run.py", (*always, *overrides), code)

    def darkroom(self, *arguments: str, code: int = 0) -> str:
        return self._program("darkroom", arguments, code)

    def _program(self, name: str, arguments: Sequence[str], code: int) -> str:
        ended = program(name, *arguments, cwd=self.folder, folder=self.folder, env=self._env)
        assert ended.code == code, f"{ended.code}:\n{ended.out}\n{ended.err}"
        return ended.out

    def rows(self) -> list[dict[str, Any]]:
        # Columns only ever grow: what a part of then has no column for is null.
        return [
            {**dict.fromkeys(columns()), **row} for part in self._parts() for row in pq.read_table(part).to_pylist()
        ]

    def columns(self) -> set[str]:
        """Those that all parts have."""
        return set.intersection(*(set(pq.read_schema(part).names) for part in self._parts()))

    def _parts(self) -> list[Path]:
        return sorted((self.outputs / "manifest" / "parts").glob("*.parquet"))

    def images(self) -> list[Path]:
        return sorted(path for path in self.outputs.rglob("*") if path.suffix in IMAGE_SUFFIXES)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "kept")


def test_its_commands_make_nothing_again(kept: Kept) -> None:
    for overrides, done, failed in COMMANDS:
        plan = json.loads(kept.run(*overrides, "dry_run=json"))
        assert (plan["already_done"], plan["to_make"], plan["failed_before"]) == (done, 0, failed), overrides
    assert len(kept.images()) == 13


def test_what_was_cut_off_is_taken_in_and_the_rest_made(kept: Kept) -> None:
    before = {path: path.read_bytes() for path in kept.images()}
    told = kept.run(*CUT)
    assert "5 requested: 2 made, 3 were there already" in told
    assert len(kept.images()) == 15 and all(path.read_bytes() == content for path, content in before.items())
    assert not list((kept.outputs / "manifest" / "journal").iterdir())
    cut = [(row["status"], row["seed"], row["attempt"]) for row in kept.rows() if row["name"] == "cut"]
    assert sorted(cut) == [
        *(("done", 1, 1), ("done", 2, 1), ("done", 3, 1), ("done", 4, 2), ("done", 5, 1)),
        ("interrupted", 4, 1),
    ]


def test_it_is_searched_shown_verified_and_reindexed(kept: Kept) -> None:
    where = "prompt = 'a hill at night' or error_kind = 'leak'"
    found = json.loads(kept.darkroom("search", "--where", where, "--columns", "seed,status", "--format", "json"))
    # Sealed failures and the rows of the journal alike.
    assert sorted((row["status"], row["seed"]) for row in found) == [("done", 1), ("done", 2)]
    failed = json.loads(kept.darkroom("search", "--where", "status = 'failed'", "--format", "json"))
    assert {row["prompt"] for row in failed} == {"my key is [key]"}

    (private,) = kept.outputs.glob("unnamed/*.png")
    (start,) = kept.outputs.glob("redrawn/*.webp")
    assert "a quiet house" in kept.darkroom("show", str(private))
    assert "a boat by a house" in kept.darkroom("show", str(start))

    before = {row["image_id"]: row for row in kept.rows() if row["status"] == "done"}
    assert len(before) == 10
    of_then = kept.columns()
    assert "0 missing, 0 changed" in kept.darkroom("verify")
    kept.darkroom("reindex")
    after = {row["image_id"]: row for row in kept.rows() if row["status"] == "done"}
    for image_id, row in before.items():
        now = after[image_id]
        assert {name: now[name] for name in of_then} == {name: row[name] for name in of_then}
    redrawn = next(row for row in after.values() if row["task"] == "img2img")
    assert redrawn["strength"] == 0.6, "columns of today are filled from the images"
    assert len(after) == 13 and len([row for row in kept.rows() if row["status"] == "failed"]) == 2
    assert "13 images: 0 missing, 0 changed" in kept.darkroom("verify")


def test_its_registry_is_read_and_takes_in_where_its_models_are_now(kept: Kept) -> None:
    """The files were scanned in a folder that is there no more; nothing known of them is forgotten by that."""
    models = ("models", "list", "--format", "json")
    known = json.loads(kept.darkroom(*models))
    assert {(one["name"], one["kind"], one["family"]) for one in known} == {
        ("model", "checkpoint", "sd15"),
        ("ink", "lora", None),
    }
    assert "2 models: 2 new" in kept.darkroom("models", "scan", "models")
    now = {one["path"] for one in json.loads(kept.darkroom(*models))}
    assert now == {one["path"] for one in known} | {
        str(kept.folder / "models" / "model"),
        str(kept.folder / "models" / "ink.safetensors"),
    }


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="made with the instructions of x86-64")
def test_its_images_are_reproduced_to_the_bit(kept: Kept) -> None:
    """By the demo model, which is found by its hash, and by a model whose place one says."""
    for path in kept.images():
        place = [] if path.parent.name in ("night", "harbour") else ["--model", "models/model"]
        named = str(path) if place else read_record(path).id[:8]
        told = kept.darkroom("reproduce", named, "--check", "--files", "models", *place)
        assert told == f"{path if place else path.relative_to(kept.folder)}: equal, pixel for pixel\n"
