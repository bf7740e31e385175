"""More like an image: which seeds, settings and prompts a run is given, and that it is told where they are from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from manifest_rows import done_of, write_part
from recorded_images import record_of, save_image

from jobs.archive.more import MAX_COMMAND, RunLike, override_value, runs_like
from jobs.cli.run_py import composed
from jobs.config.batch_config import BatchConfig, parse_configs
from jobs.job import Job
from jobs.manifest.journal import Journal
from jobs.manifest.rows import done_row
from jobs.manifest.schema import Row
from jobs.planning.expand import Expansion
from jobs.prompts.lines import read_line
from jobs.prompts.open_prompts import open_prompts
from jobs.prompts.templates import Wildcards
from pipeline.errors import ConfigError, ModelError, ReadError
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.record import Record
from pipeline.registry.lookup import content_hash
from pipeline.weights.references import EMBEDDED

HOSTILE = 'a "quoted" {red|blue} house, ${prompt} [0.5] \\ __colour__ <lora:x:1>\nand a second line, = 日没'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "argv", ["darkroom"])
    monkeypatch.chdir(tmp_path)


def recorded(n: int, **changes: Any) -> tuple[Record, Row]:
    """A record of the demo model, without adapters, and its row."""
    import numpy as np

    plain = record_of(n, np.zeros((16, 16, 3), np.uint8), MetadataSettings())
    model = plain.model.model_copy(update={"sha256": content_hash(EMBEDDED["demo"])})
    values = {"model": model, "vae": None, "loras": [], "clip_skip": None, "steps": 8, "width": 64, "height": 64}
    record = plain.model_copy(update=values | changes)
    return record, done_row(record, f"study/{n}.png", f"{n:064x}")


def put(folder: Path, *rows: Row) -> Path:
    write_part(folder, "a", rows)
    return folder


def configs(runs: list[RunLike]) -> list[BatchConfig]:
    commands = [run.command for run in runs]
    assert all(commands)
    return parse_configs([composed(command) for command in commands if command])


def seeds(runs: list[RunLike]) -> list[list[int]]:
    return [line["seeds"] for run in runs for line in run.lines]


def test_the_same_settings_get_new_seeds_and_the_text_as_the_model_got_it(tmp_path: Path) -> None:
    record, row = recorded(3, prompt=HOSTILE, negative_prompt="fog, ${seeds}")
    put(tmp_path, row)
    runs = runs_like([record.id[:8]], None, tmp_path)
    (config,) = configs(runs)
    (line,) = config.prompts.lines or []
    assert (line["text"], line["negative_prompt"], line["seeds"]) == (HOSTILE, "fog, ${seeds}", [4, 5, 6, 7])
    assert (line["derived_from"], line["name"], line["tags"]) == (record.id, "study", ["tests", "sea"])
    assert config.sampling.model_dump(exclude_none=True) == {
        "steps": 8, "guidance_scale": 3.5, "width": 64, "height": 64, "scheduler": "DPM++ 2M",
    }  # fmt: skip
    assert (config.model.source, config.memory.level, config.memory.dtype) == ("demo", "none", "float32")
    assert (config.selection.mode, config.prompts.variants.mode, config.adapters.tags) == ("manual", "literal", False)
    assert Path(config.output.dir) == tmp_path and config.metadata.profile == "private"  # its file is gone


def test_jobs_say_which_image_they_are_derived_from(tmp_path: Path) -> None:
    record, row = recorded(1)
    put(tmp_path, row)
    (config,) = configs(runs_like([record.id, "seeds=2"], None, tmp_path))
    jobs = jobs_of(config)
    assert [job.derived_from for job in jobs] == [record.id] * 2
    assert [(job.request.prompt, job.request.seed) for job in jobs] == [(record.prompt, 2), (record.prompt, 3)]


def jobs_of(config: BatchConfig) -> list[Job]:
    from pipeline.request import MemorySettings, ModelSettings

    model = ModelSettings(name="demo", source="demo", sha256="a" * 64, architecture="sd")
    return list(
        Expansion(config, 0, open_prompts(config.prompts), Wildcards(), model, MemorySettings(), config.sampling)
    )


@pytest.mark.slow
def test_new_seeds_are_the_next_that_the_prompt_does_not_have(tmp_path: Path) -> None:
    (one, first), (two, second), (_, other) = recorded(1, prompt="x"), recorded(3, prompt="x"), recorded(4, prompt="y")
    put(tmp_path, first, second, other)
    assert seeds(runs_like([one.id, "seeds=3"], None, tmp_path)) == [[2, 4, 5]]
    assert seeds(runs_like([one.id, two.id, "seeds=2"], None, tmp_path)) == [[2, 4], [5, 6]]
    assert seeds(runs_like([], "prompt = 'x'", tmp_path)) == [[2, 4, 5, 6], [7, 8, 9, 10]]
    put(tmp_path / "elsewhere", done_of(2, prompt="x"))
    assert seeds(runs_like([one.id, "seeds=2", f"output.dir={tmp_path / 'elsewhere'}"], None, tmp_path)) == [[4, 5]]


def test_the_last_seed_is_followed_by_the_first(tmp_path: Path) -> None:
    record, row = recorded(1, seed=2**53 - 1)
    put(tmp_path, row)
    assert seeds(runs_like([record.id, "seeds=2"], None, tmp_path)) == [[0, 1]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [("seeds=[9, 7]", [9, 7]), ("seeds=range(5,8)", [5, 6, 7]), ("seeds={start: 2, count: 2}", [2, 3])],
)
def test_a_list_or_range_says_which_seeds(said: str, expected: list[int], tmp_path: Path) -> None:
    record, row = recorded(1)
    put(tmp_path, row)
    assert seeds(runs_like([record.id, said], None, tmp_path)) == [expected]


@pytest.mark.slow
def test_with_a_changed_setting_the_seed_stays(tmp_path: Path) -> None:
    record, row = recorded(1)
    put(tmp_path, row)
    (config,) = configs(runs_like([record.id, "sampling.steps=60"], None, tmp_path))
    assert config.sampling.steps == 60 and config.sampling.guidance_scale == 3.5
    assert (config.prompts.lines or [])[0]["seeds"] == [1]
    changed = ("sampling=draft", "prompt=a green hill", "prompts.negative_prompt=fog", "seeds=1", "name=hills")
    (config,) = configs(runs_like([record.id, *changed], None, tmp_path))
    (line,) = config.prompts.lines or []
    assert (line["text"], config.prompts.negative_prompt, config.title) == ("a green hill", "fog", "hills")
    assert "negative_prompt" not in line and "name" not in line and config.sampling.guidance_scale is None
    assert seeds(runs_like([record.id, "output.format=jpeg"], None, tmp_path)) == [[2, 3, 4, 5]]


def test_another_model_is_taken_where_the_recorded_one_is_not_here(tmp_path: Path) -> None:
    gone = record_of(3, __import__("numpy").zeros((16, 16, 3), "uint8"), MetadataSettings()).model
    record, row = recorded(1, model=gone)
    put(tmp_path, row)
    with pytest.raises(ModelError, match=r"the model demo \(SHA-256 aaaaaaaaaaaa\.\.\.\) that made this image"):
        runs_like([record.id], None, tmp_path)
    (config,) = configs(runs_like([record.id, "model=demo"], None, tmp_path))
    assert (config.model.source, config.sampling.steps) == ("demo", 8)


def test_images_of_other_settings_are_other_runs_and_equal_ones_share_one(tmp_path: Path) -> None:
    rows = [recorded(n, steps=8 if n < 3 else 12)[1] for n in range(1, 5)]
    put(tmp_path, *rows)
    runs = runs_like(["seeds=1"], "steps > 1", tmp_path)
    assert [len(run.lines) for run in runs] == [2, 2]
    assert [config.sampling.steps for config in configs(runs)] == [8, 12]


def test_a_prompt_may_be_longer_than_a_file_s_name(tmp_path: Path) -> None:
    record, row = recorded(1)
    put(tmp_path, row)
    (run,) = runs_like([record.id, f"prompt={'a red house, ' * 100}"], None, tmp_path)
    assert run.lines[0]["text"].startswith("a red house, a red house") and run.lines[0]["seeds"] == [1]


def test_many_prompts_are_no_command_line(tmp_path: Path) -> None:
    record, row = recorded(1, prompt="x" * (MAX_COMMAND + 1))
    put(tmp_path, row)
    (run,) = runs_like([record.id], None, tmp_path)
    assert run.command is None and run.lines[0]["text"] == record.prompt


def test_an_image_file_says_how_much_those_like_it_tell(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    try:
        path = tmp_path / str(save_image(journal, tmp_path, 0, profile="private")["path"])
    finally:
        journal.close()
    (run,) = runs_like([str(path), "model=demo"], None, tmp_path)
    assert "metadata=private" in run.arguments and run.lines[0]["text"].startswith("a red house")
    (run,) = runs_like([str(path), "model=demo", "metadata=full"], None, tmp_path)
    assert "metadata=private" not in run.arguments


@pytest.mark.parametrize(
    ("words", "where", "told"),
    [
        ([], None, "name images, or give a condition"),
        (["x.png"], "steps > 1", "name images, or give a condition"),
        (["nothing.png"], None, "no such image"),
        ([], "steps = 77", "finds no image"),
        (["ID", "prompts.lines=[a]"], None, "prompts.lines: the prompts are those of the images"),
        (["ID", "seeds=0"], None, "says how many new seeds"),
        (["ID", "seeds=[x]"], None, "seeds: 'x' is not a whole number"),
        (["ID", "seeds=[1"], None, "seeds: "),
    ],
)
def test_what_cannot_be_is_one_clear_line(words: list[str], where: str | None, told: str, tmp_path: Path) -> None:
    record, row = recorded(1)
    put(tmp_path, row)
    with pytest.raises(ConfigError) as error:
        runs_like([record.id if word == "ID" else word for word in words], where, tmp_path)
    assert told in str(error.value)


def test_another_program_s_picture_has_no_settings(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(ReadError):
        runs_like([str(tmp_path / "x.png")], None, tmp_path)


def test_values_are_written_as_hydra_reads_them() -> None:
    value = {"a": [1, 0.5, None, True], "b": 'say "yes"'}
    assert override_value(value) == '{a:[1,0.5,null,true],b:"say \\"yes\\""}'


def test_records_of_images_of_their_own_say_nothing_of_another(tmp_path: Path) -> None:
    plain, _ = recorded(1, derived_from=None)
    derived, _ = recorded(1, derived_from="a3f2e9d4-b2c1-4a8e-9f3d-1e2a4b5c6d7e")
    assert "derived_from" not in plain.to_json() and Record.from_json(plain.to_json()) == plain
    assert Record.from_json(derived.to_json()).derived_from == "a3f2e9d4-b2c1-4a8e-9f3d-1e2a4b5c6d7e"
    with pytest.raises(ValueError, match="derived_from"):
        Record.from_json(derived.to_json().replace("a3f2e9d4-b2c1", "../../secret"))


def test_a_line_names_the_image_that_it_is_derived_from() -> None:
    line = read_line({"text": "x", "derived_from": "a3f2e9d4-b2c1-4a8e-9f3d-1e2a4b5c6d7e"}, "lines[0]")
    assert line.derived_from == "a3f2e9d4-b2c1-4a8e-9f3d-1e2a4b5c6d7e"
    with pytest.raises(ConfigError, match=r"lines\[0\]: derived_from: must be the id of an image"):
        read_line({"text": "x", "derived_from": "picture.png"}, "lines[0]")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(8, 8), (8, 12)])
def test_the_command_plans_all_of_it_at_once(
    steps: tuple[int, int], tmp_path: Path, darkroom: Callable[..., tuple[int, str, str]]
) -> None:
    rows = [recorded(n, steps=one, prompt=f"{HOSTILE}{n}")[1] for n, one in enumerate(steps)]
    put(tmp_path, *rows)
    words = ("more", "--where", "steps > 1", "seeds=3", "dry_run=json", "verbose=true", "--output-dir", tmp_path)
    code, out, err = darkroom(*words)
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert plan["requested"] == plan["to_make"] == 6
    assert {(job["prompt"], job["steps"]) for job in plan["jobs"]} == {
        (f"{HOSTILE}{n}", one) for n, one in enumerate(steps)
    }
