"""Prompts without a model: chosen among scanned models by their cards, recorded, taken over by the next run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import program

from jobs.archive.search import search
from jobs.manifest.preferences import read_preferences
from jobs.running.main import main
from pipeline.registry.database import Registry
from pipeline.registry.scanning import scan

OIL = "un faro en la tormenta, óleo"
PHOTO = "photo of an old fisherman at golden hour"

CARDS = {
    "photo_xl": ("sdxl", "[photorealistic, photography, portrait]", "Photographs of people and landscapes. CFG 5."),
    "brush": ("flux", "[painting, oil painting, watercolor]", "Oil paintings, watercolours and seascapes."),
}


def add_model(folder: Path, name: str, source: Path, tags: str, text: str, seed: int = 0) -> None:
    """A scanned model with a card beside it; `seed` makes its weights others than those of its source."""
    shutil.copytree(source, folder / name)
    (folder / name / "README.md").write_text(f"---\nlicense: apache-2.0\ntags: {tags}\n---\n# {name}\n{text}\n")
    if seed:
        import torch
        from safetensors.torch import load_file, save_file

        file = next((folder / name / "vae").glob("*.safetensors"))
        tensors = load_file(file)
        first = sorted(tensors)[0]
        tensors[first] = tensors[first] + torch.tensor(0.01 * seed)
        save_file(tensors, file)
    with Registry() as registry:
        scan(registry, folder)


@pytest.fixture(scope="module")
def models(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARKROOM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for seed, (name, (family, tags, text)) in enumerate(CARDS.items(), start=2):
            add_model(folder, name, tiny(family), tags, text, seed)  # of its own content, which nobody finds elsewhere
        yield folder


def config(out: Path, *lines: Any, **keys: Any) -> dict[str, Any]:
    own = {
        "prompts": {"lines": list(lines), "name": "mine"},
        "model": {"source": "auto"},
        "selection": {"analysis": "rules"},
        "memory": {"level": "auto"},
        "sampling": {"steps": 1, "width": 32, "height": 32},
        "engine": {"device": "cpu", "cpu_threads": 1},
        "output": {"dir": str(out)},
        "quiet": True,
    }
    return {**own, **keys}


def rows(out: Path) -> list[dict[str, Any]]:
    return [*search(out, columns=("*",))]


def planned(capsys: pytest.CaptureFixture[str], values: dict[str, Any]) -> dict[str, Any]:
    assert main([{**values, "dry_run": "json"}], []) == 0
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plan


@pytest.mark.slow
def test_each_prompt_goes_to_the_model_that_suits_it_and_stays_there(
    models: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = config(tmp_path, OIL, PHOTO, name="both")
    assert main([values], []) == 0
    made = {row["prompt_index"]: row for row in rows(tmp_path)}
    assert {index: row["model"] for index, row in made.items()} == {0: "brush", 1: "photo_xl"}
    assert made[0]["prompt"] == OIL and made[0]["prompt_template"] is None and made[0]["negative_prompt"] == ""
    negative = made[1]["negative_prompt"]
    assert "painting" in negative and "photo" not in negative, "a photo is no painting, and was asked for"
    assert made[1]["guidance_scale"] == 5.0, "as its card says"
    assert (made[1]["steps"], made[1]["width"]) == (1, 32), "what is set is never chosen"
    kept = json.loads(made[1]["selection"])
    assert kept["choice"]["model"]["chosen"] == "photo_xl" and kept["analysis"]["medium"] == ["photo"]
    assert json.loads(made[1]["record_json"])["selection"] == kept
    assert str(models) not in made[1]["record_json"], "no path is written"

    image = tmp_path / made[1]["path"]
    explained = json.loads(
        program("darkroom", "explain", str(image), "--format", "jsonl", cwd=tmp_path, folder=tmp_path).out
    )
    assert explained == {"prompt": PHOTO, "analysis": kept["analysis"], "choice": kept["choice"]}

    rate = ("rate", str(image), "5", "--output-dir", str(tmp_path))
    assert program("darkroom", *rate, cwd=tmp_path, folder=tmp_path).code == 0
    learned = read_preferences(tmp_path).hash
    rated = planned(capsys, {**values, "selection": {"analysis": "rules", "refresh": True}})
    assert {one["statistics"] for one in rated["choices"]} == {learned}, "the plan names what it has learned from"
    unlearned = planned(capsys, {**values, "selection": {"analysis": "rules", "refresh": True, "learn": False}})
    assert {one["statistics"] for one in unlearned["choices"]} == {None}

    add_model(models, "oil_master", tiny("flux"), "[oil painting]", "Oil paintings of lighthouses and storms.", seed=1)
    try:
        plan = planned(capsys, values)
        assert (plan["to_make"], plan["already_done"]) == (0, 2), "a choice, once made, stays"
        assert {one["choice"]["model"]["chosen"] for one in plan["choices"]} == {"brush", "photo_xl"}
        anew = planned(capsys, {**values, "selection": {"analysis": "rules", "refresh": True}})
        assert {one["choice"]["model"]["chosen"] for one in anew["choices"]} == {"oil_master", "photo_xl"}
        assert anew["to_make"] == 1
    finally:
        shutil.rmtree(models / "oil_master")
        with Registry() as registry:
            scan(registry, models)
    shutil.rmtree(models / "brush")
    with Registry() as registry:
        scan(registry, models)
    gone = planned(capsys, values)
    assert {one["choice"]["model"]["chosen"] for one in gone["choices"]} == {"photo_xl"}, "what is gone is chosen anew"
    add_model(models, "brush", tiny("flux"), *CARDS["brush"][1:], seed=3)


def test_what_is_set_is_never_chosen(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_by_line = {"text": PHOTO, "negative_prompt": "hats", "steps": 3}
    plan = planned(capsys, config(tmp_path, set_by_line, grid={"sampling.guidance_scale": [2.0, 4.0]}))
    jobs = plan["jobs"]
    assert {(job["steps"], job["guidance_scale"]) for job in jobs} == {(3, 2.0), (3, 4.0)}
    assert all(job["negative_prompt"].startswith("hats") for job in jobs), "the user's own text comes first"
    (choice,) = [one["choice"] for one in plan["choices"]]
    assert not {"steps", "guidance_scale", "width"} & choice["sampling"].keys()
    assert choice["negative_prompt"]["own"] == "hats" and "hats" not in choice["negative_prompt"]["added"]

    named = planned(capsys, config(tmp_path, PHOTO, model={"source": "demo"}))
    assert "choices" not in named and named["jobs"][0]["model"] == "demo"
    only_flux = planned(capsys, config(tmp_path, PHOTO, selection={"families": ["flux"], "analysis": "rules"}))
    assert only_flux["choices"][0]["choice"]["model"]["chosen"] == "brush"


def test_a_set_names_the_model_that_it_was_written_for_and_jobs_are_those_of_the_profile(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = Path(__file__).resolve().parents[2] / "conf"
    prompts = {"name": "mine", "lines": ["a red house in hills at sunset"], "model": "demo"}
    profile = {"source": "demo", "name": "demo", "sampling": {"steps": 20, "guidance_scale": 2.0}}
    plans = []
    for values in ({"model": {"source": "auto"}, "prompts": prompts}, {"model": profile}):
        values = {**config(tmp_path, *prompts["lines"]), **values, "dry_run": "json"}
        assert main([values], [conf]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    auto, named = (plan["jobs"][0]["job_id"] for plan in plans)
    assert auto == named
    unknown = config(tmp_path, PHOTO, prompts={**prompts, "model": "demmo"})
    assert main([unknown], [conf]) == 2
    assert "prompts.model: 'demmo': no such model profile; did you mean 'demo'?" in capsys.readouterr().err


def test_manual_and_assisted_say_what_they_need(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([config(tmp_path, PHOTO, selection={"mode": "manual"})], []) == 2
    assert "selection=manual chooses nothing; name one: model=NAME" in capsys.readouterr().err
    assert main([config(tmp_path, PHOTO, selection={"mode": "assisted", "analysis": "rules"})], []) == 2
    assert "selection.accept=true" in capsys.readouterr().err
    assert not list(tmp_path.glob("manifest/**/*.parquet"))


@pytest.mark.slow
def test_a_private_prompt_leaves_no_reasons(models: Path, tmp_path: Path) -> None:
    private = config(tmp_path, PHOTO, metadata={"profile": "private"}, naming={"scheme": "guid"})
    assert main([private], []) == 0
    (row,) = rows(tmp_path)
    kept = json.loads(row["selection"])
    assert kept["analysis"] is None and set(kept["choice"]["model"]) == {"chosen"}
    (log,) = (tmp_path / "runs").glob("*/run.log")
    assert "photo_xl" in log.read_text() and "fisherman" not in log.read_text()
    before = row["job_id"]
    assert main([private], []) == 0
    assert [one["job_id"] for one in rows(tmp_path)] == [before], "taken over all the same"
