"""Characters as a prompt set: lines with tags, faults with their place, and what a plan says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.config.sections import Characters, Prompts
from jobs.prompts.open_prompts import open_prompts
from jobs.running.main import main
from pipeline.errors import ConfigError

SMALL = dict.fromkeys(
    ("build", "skin", "hair_colour", "hair_style", "clothing", "pose", "view", "light", "expression")
) | {"place": ["at sea", "on a hill"]}


def config(output: Path, characters: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {
        "prompts": {"name": "people", "tags": ["study"], "characters": characters},
        "model": {"source": "demo"},
        "memory": {"level": "auto"},
        "sampling": {},
        "output": {"dir": str(output)},
        "dry_run": True,
        **values,
    }


def test_rows_are_lines_with_their_attributes_as_tags() -> None:
    lines = open_prompts(Prompts(characters=Characters(attributes=SMALL)))
    assert len(lines) == 12  # six ages, two places
    assert {line.tags for line in lines} == {
        (f"age:{age}", f"place:{place}")
        for age in ("twenties", "thirties", "forties", "fifties", "sixties", "seventies")
        for place in SMALL["place"]  # type: ignore[union-attr]
    }
    first = lines[0]
    assert (
        first.text == f"a person in their {first.tags[0].removeprefix('age:')}, {first.tags[1].removeprefix('place:')}"
    )
    assert lines[-1].where == "prompts.characters: row 12"
    assert lines[2:4] == [lines[2], lines[3]]
    with pytest.raises(IndexError):
        lines[12]


def test_faults_have_their_place_in_the_configuration() -> None:
    with pytest.raises(ConfigError) as caught:
        open_prompts(Prompts(characters=Characters(attributes={"mood": []}, template="a person")))
    assert caught.value.faults[0] == "prompts.characters.attributes.mood: is empty; null leaves the attribute out"
    assert caught.value.faults[1].startswith("prompts.characters.template: lacks {age}, ")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "needs lines: .* file: .* characters: "),
        ({"lines": ["a"], "characters": {}}, "has lines and characters"),
        ({"file": "a.txt", "characters": {}}, "has file and characters"),
    ],
)
def test_a_set_has_one_source(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Prompts(**given)


def test_a_plan_says_which_pairs_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([config(tmp_path, {"attributes": SMALL})], []) == 0
    assert "characters    12 rows, pairs 12 of 12\n" in capsys.readouterr().out
    assert main([config(tmp_path, {"attributes": SMALL, "count": 5}, dry_run="json")], []) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["characters"] == [{"prompt_set": "people", "rows": 5, "pairs": 12, "pairs_covered": 5}]
    assert told["requested"] == 5 and told["jobs"][0]["tags"][0] == "study"


def test_a_plan_of_other_prompts_says_nothing_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = config(tmp_path, {}, prompts={"lines": ["a red house"]})
    assert main([values], []) == 0
    assert "characters" not in capsys.readouterr().out
