"""`prompt=TEXT` as a user gives it: one picture, also of the command that was kept; prompts of a sweep."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from forked import program
from test_failures import KEY

PROMPT = 'un faro en la tormenta, óleo, "SOS" = (a:1.2) {rojo|rojo} ${name}'
READ = PROMPT.replace("{rojo|rojo}", "rojo")


def planned(folder: Path, *arguments: str) -> list[dict[str, object]]:
    ended = program("run.py", *arguments, "dry_run=json", cwd=folder, folder=folder)
    assert ended.code == 0, ended.err
    jobs: list[dict[str, object]] = json.loads(ended.out)["jobs"]
    return jobs


@pytest.mark.slow
def test_a_prompt_is_made_and_its_command_can_be_given_again(tmp_path: Path, tiny_sd: Path) -> None:
    rest = ["model=custom", f"model.source={tiny_sd}", "sampling.steps=1", "engine.device=cpu"]
    made = program("run.py", f"prompt={PROMPT}", *rest, cwd=tmp_path, folder=tmp_path)
    assert made.code == 0 and "1 made" in made.out, made
    assert len(list((tmp_path / "outputs" / "prompt").glob("*.png"))) == 1
    (summary,) = (tmp_path / "outputs" / "runs").glob("*/summary.json")
    words = shlex.split(json.loads(summary.read_text())["command"])
    assert words[2] == f"prompt={PROMPT}"
    again = program("run.py", *words[2:-3], *rest[1:], cwd=tmp_path, folder=tmp_path)
    assert again.code == 0 and "0 made, 1 were there already" in again.out, again
    search = ("search", "--columns", "prompt,prompt_set,name", "--format", "json")
    (row,) = json.loads(program("darkroom", *search, cwd=tmp_path, folder=tmp_path).out)
    assert (row["prompt"], row["prompt_set"], row["name"]) == (READ, "prompt", "prompt")


@pytest.mark.slow
def test_prompts_of_a_sweep_and_keys_of_a_set(tmp_path: Path) -> None:
    swept = planned(tmp_path, "-m", "prompt=a boat, oil,a house", "sampling.steps=2,3")
    assert sorted(str(job["prompt"]) for job in swept) == ["a boat, oil"] * 2 + ["a house"] * 2
    (job,) = planned(tmp_path, "prompt=a boat", "experiment=dataset_1000", "seeds=1")  # which has lines of its own
    assert job["prompt"] == "a boat"
    (job,) = planned(tmp_path, "prompt=a boat", "prompts.suffix=' at night'", "name=mine")
    assert job["prompt"] == "a boat at night"


@pytest.mark.slow
def test_a_prompt_of_a_file_needs_its_set_and_yields_to_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "lone.yaml").write_text("# @package _global_\nprompt: a boat\n")
    (folder / "whole.yaml").write_text("# @package _global_\ndefaults: [override /prompts: prompt]\nprompt: a boat\n")
    own = ("--config-dir", str(tmp_path / "conf"))
    ended = program("run.py", *own, "experiment=lone", "dry_run=true", cwd=tmp_path, folder=tmp_path)
    assert ended.code == 2 and "a file that has it needs `override /prompts: prompt`" in ended.err, ended
    assert [job["prompt"] for job in planned(tmp_path, *own, "experiment=whole")] == ["a boat"]
    assert [job["prompt"] for job in planned(tmp_path, *own, "experiment=whole", "prompt=a car")] == ["a car"]
    assert {job["name"] for job in planned(tmp_path, *own, "experiment=whole", "prompts=demo")} == {"demo"}


@pytest.mark.parametrize("metadata", ["private", "full"])
def test_a_prompt_leaks_neither_keys_nor_private_texts(tmp_path: Path, tiny_sd: Path, metadata: str) -> None:
    rest = ["model=custom", f"model.source={tiny_sd}", "sampling.steps=1", "engine.device=cpu"]
    prompt = "a violet dragon" if metadata == "private" else f"my key is {KEY}"
    ended = program("run.py", f"prompt={prompt}", f"metadata={metadata}", *rest, cwd=tmp_path, folder=tmp_path)
    (log,) = (tmp_path / "outputs" / "runs").glob("*/run.log")
    if metadata == "private":
        assert ended.code == 0 and "dragon" not in log.read_text() and "prompt=REMOVED" in log.read_text()
    else:
        assert ended.code == 3 and "refused: prompt 1 of prompt= on the command line, 1 image" in ended.err
        kept = b"".join(path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file())
        assert KEY.encode() not in kept
