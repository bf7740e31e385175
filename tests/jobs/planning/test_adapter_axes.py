"""Adapters and reference pictures as axes of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.planning.adapter_axes import changed
from jobs.planning.grid import Grid
from pipeline.adapters.specs import AdapterSpecs, InitSpec
from pipeline.errors import ConfigError


def settings_of(grid: dict[str, Any]) -> list[tuple[tuple[str, Any], ...]]:
    return [combination.adapters for combination in Grid(grid)]


def faults(grid: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Grid(grid)
    return list(caught.value.faults)


def test_the_weight_of_one_lora_is_an_axis() -> None:
    grid = {"adapters.loras.0.weight": [0, 0.5, 1], "seed": [1, 2]}
    combinations = list(Grid(grid))
    assert len(combinations) == 6
    assert [(one.adapters, one.seed) for one in combinations[:3]] == [
        ((("adapters.loras.0.weight", 0.0),), 1),
        ((("adapters.loras.0.weight", 0.0),), 2),
        ((("adapters.loras.0.weight", 0.5),), 1),
    ]
    assert list(Grid(grid).adapter_combinations()) == [
        (("adapters.loras.0.weight", weight),) for weight in (0.0, 0.5, 1.0)
    ]


def test_whole_lists_of_loras_are_an_axis() -> None:
    found = settings_of({"adapters.loras": [[], [{"source": "a.safetensors"}], [{"source": "b", "weight": 2}]]})
    lists = [dict(values)["adapters.loras"] for values in found]
    assert [[(one["source"], one["weight"]) for one in entries] for entries in lists] == [
        [],
        [("a.safetensors", 1.0)],
        [("b", 2.0)],
    ]


def test_pictures_and_strengths_can_move_together() -> None:
    found = settings_of({"init.image+init.strength": [["a.png", 0.3], ["b.png", 0.8]]})
    assert found == [
        (("init.image", "a.png"), ("init.strength", 0.3)),
        (("init.image", "b.png"), ("init.strength", 0.8)),
    ]


def test_no_picture_is_a_step_of_an_axis_as_well() -> None:
    assert settings_of({"init.image": [None, "a.png"]}) == [(("init.image", None),), (("init.image", "a.png"),)]


def test_keys_on_the_command_line_are_nested_and_mean_the_same() -> None:
    nested = {"adapters": {"loras": {0: {"weight": [0.5, 1]}}}, "init": {"strength": [0.2]}}
    assert settings_of(nested) == settings_of({"adapters.loras.0.weight": [0.5, 1], "init.strength": [0.2]})


def test_files_of_a_folder_are_an_axis(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.txt"):
        (tmp_path / name).touch()
    found = settings_of({"init.image": f"glob({tmp_path}/*.png)"})
    assert found == [(("init.image", str(tmp_path / name)),) for name in ("a.png", "b.png")]
    (fault,) = faults({"init.image": f"glob({tmp_path}/*.gif)"})
    assert "matches no file" in fault


@pytest.mark.parametrize(
    ("grid", "key", "expected"),
    [
        ({"adapters.loras.0.wheight": [1]}, "grid.adapters.loras.0.wheight", "did you mean 'adapters.loras.0.weight'?"),
        ({"adapters.loras.0.weight": ["much"]}, "grid.adapters.loras.0.weight[0]", "must be a number"),
        ({"adapters.loras": [[{"weight": 1}]]}, "grid.adapters.loras[0]", "is missing"),
        ({"init.strength": [0]}, "grid.init.strength[0]", "must be a number above 0, up to 1"),
        (
            {"adapters.controlnets.0.preprocess": ["depth"]},
            "grid.adapters.controlnets.0.preprocess[0]",
            "must be one of none, canny",
        ),
    ],
)
def test_faults_name_the_step(grid: dict[str, Any], key: str, expected: str) -> None:
    (fault,) = faults(grid)
    assert fault.startswith(key) and expected in fault


def test_values_are_put_in_their_places() -> None:
    sets = AdapterSpecs.model_validate({"loras": [{"source": "a"}, {"source": "b"}]})
    changed_sets, init = changed(sets, InitSpec(), [("adapters.loras.1.weight", 0.3), ("init.image", "x.png")])
    assert [(lora.source, lora.weight) for lora in changed_sets.loras] == [("a", 1.0), ("b", 0.3)]
    assert (init.image, sets.loras[1].weight) == ("x.png", 1.0)


def test_a_place_that_the_list_does_not_have_is_said() -> None:
    sets = AdapterSpecs.model_validate({"loras": [{"source": "a"}]})
    with pytest.raises(ValueError, match=r"adapters\.loras has 1 entries"):
        changed(sets, InitSpec(), [("adapters.loras.1.weight", 0.3)])
