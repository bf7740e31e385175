"""`darkroom explain` for prompts, files of prompts and images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Ended, program
from recorded_images import save_image

from jobs.manifest.journal import Journal
from pipeline.prompting.analysis import PromptAnalysis

Explain = Callable[..., Ended]

SPANISH = "un faro en la tormenta, óleo"


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    def explained(*arguments: str) -> Ended:
        return program("darkroom", "explain", *arguments, cwd=tmp_path, folder=tmp_path)

    return explained


@pytest.mark.slow
def test_a_prompt_is_explained_in_words_and_as_one_object(explain: Explain, tmp_path: Path) -> None:
    said = explain(SPANISH)
    assert said.code == 0, said.err
    assert "medium:" in said.out and "oil" in said.out and "demo: no other model may be taken here" in said.out
    found = explain(SPANISH, "--format", "jsonl", "sampling.steps=7")
    (line,) = found.out.splitlines()
    values = json.loads(line)
    assert list(values) == ["prompt", "analysis", "choice"] and values["prompt"] == SPANISH
    assert set(values["analysis"]) == set(PromptAnalysis().to_json())
    (oil,) = [one for one in values["analysis"]["evidence"] if one["value"] == "oil"]
    assert (oil["words"], oil["span"], oil["stage"]) == ("óleo", [24, 28], "rules")
    assert "steps" not in values["choice"]["sampling"], "it is set"
    assert not (tmp_path / "outputs").exists(), "nothing is made"


def test_a_file_is_expanded_as_a_run_expands_it(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "{a red|a blue} house"}\n"a boat"\n')
    found = explain("--file", "mine.jsonl", "--format", "jsonl", "prompts.variants.mode=combinatorial")
    assert found.code == 0, found.err
    prompts = [json.loads(line)["prompt"] for line in found.out.splitlines()]
    assert prompts == ["a red house", "a blue house", "a boat"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_a_path_may_hold_what_means_something_to_hydra(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / 'a\\"1 ${x}.txt').write_text("a red boat\n")
    found = explain("--file", 'a\\"1 ${x}.txt', "--format", "jsonl", "--output-dir", "o\\ut ${y}")
    assert found.code == 0, found.err
    assert json.loads(found.out)["prompt"] == "a red boat"


def test_an_image_is_named_as_for_other_commands(explain: Explain, tmp_path: Path) -> None:
    with Journal(tmp_path / "outputs") as journal:
        row = save_image(journal, tmp_path / "outputs", 7)
    for name in (f"outputs/{row['path']}", str(row["path"]), str(row["image_id"]), str(row["image_id"])[:8]):
        told = explain(name)
        assert (told.code, told.out) == (2, "") and "nothing was chosen for it: its model was named" in told.err, told
    assert "no such image" in explain("0" * 8).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "takes one prompt (in quotes) or one image"),
        (("a house", "and a boat"), "takes one prompt (in quotes) or one image"),
        (("--file", "nowhere.txt"), "--file nowhere.txt: no such file"),
        (("a house", "model=demo"), "nothing is chosen: the model is named"),
        (("a house", "selection.max_loras=many"), "selection.max_loras"),
    ],
)
def test_what_cannot_be_explained_is_one_line(explain: Explain, arguments: tuple[str, ...], says: str) -> None:
    refused = explain(*arguments)
    assert refused.code == 2 and says in refused.err and "Traceback" not in refused.err
