"""The grid: products, zipped keys, ranges, and what is said of a bad one."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.config.values import parse_range
from jobs.planning.grid import Combination, Grid
from pipeline.errors import ConfigError


def faults_of(grid: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Grid(grid)
    return list(caught.value.faults)


def test_no_grid_is_one_combination_that_changes_nothing() -> None:
    assert list(Grid(None)) == list(Grid({})) == [Combination({})]


def test_axes_are_multiplied_in_the_order_written() -> None:
    grid = Grid({"sampling.steps": [10, 20], "seed": [1, 2], "prompts.prefix": ["a ", "b "]})
    assert len(grid) == 8
    assert [(c.sampling["steps"], c.seed, c.prefix) for c in grid][:3] == [(10, 1, "a "), (10, 1, "b "), (10, 2, "a ")]
    assert [grid[index] for index in range(8)] == list(grid)
    with pytest.raises(IndexError):
        grid[8]


def test_joined_keys_move_together() -> None:
    grid = Grid({"sampling.width+sampling.height": [[64, 64], [96, 64]], "sampling.guidance_scale": [1]})
    assert [c.sampling for c in grid] == [
        {"width": 64, "height": 64, "guidance_scale": 1.0},
        {"width": 96, "height": 64, "guidance_scale": 1.0},
    ]


def test_values_are_those_of_the_configuration() -> None:
    (point,) = Grid(
        {
            "sampling.scheduler": ["euler_a"],
            "prompts.negative_prompt": ["people"],
            "prompts.suffix": [", oil"],
            "prompts.tags": [["a", "b"]],
        }
    )
    assert point == Combination({"scheduler": "Euler a"}, None, "people", None, ", oil", ("a", "b"))


def test_ranges_are_those_of_python() -> None:
    assert [c.sampling["steps"] for c in Grid({"sampling.steps": "range(10, 40, 10)"})] == [10, 20, 30]
    assert [c.sampling["guidance_scale"] for c in Grid({"sampling.guidance_scale": "range(0.1, 0.5, 0.1)"})] == [
        0.1,
        0.2,
        0.3,
        0.4,
    ]
    assert [c.seed for c in Grid({"seed": {"start": 5, "count": 2}})] == [5, 6]
    assert parse_range("range(5, 0, -2)") == range(5, 0, -2)
    assert parse_range("a house") is None


def test_a_grid_of_the_command_line_means_the_same() -> None:
    assert list(Grid({"sampling": {"steps": [1, 2]}})) == list(Grid({"sampling.steps": [1, 2]}))


def test_ten_million_seeds_take_no_memory() -> None:
    grid = Grid({"seed": "range(0, 10000000)"})
    assert len(grid) == 10_000_000
    assert grid[9_999_999].seed == 9_999_999


def test_all_faults_are_reported_with_their_place() -> None:
    assert faults_of(
        {
            "sampling.steps": [10, 0, "many"],
            "sampling.scheduler": ["eular"],
            "sampling.width+sampling.height": [[64, 65]],
            "prompts.prefix": ["ok", "a\0"],
            "sampling.clip_skip": [None],
        }
    ) == [
        "grid.sampling.steps[1]: must be a whole number from 1 to 1000 (got 0)",
        "grid.sampling.steps[2]: must be a whole number from 1 to 1000 (got 'many')",
        "grid.sampling.scheduler[0]: is no known scheduler; did you mean 'Euler'? (got 'eular')",
        "grid.sampling.width+sampling.height[0][1]: must be a multiple of 8 pixels, for instance 64 or 72 (got 65)",
        "grid.prompts.prefix[1]: holds U+0000 (NUL), a control character, as character 2; remove it",
        "grid.sampling.clip_skip[0]: must have a value; null leaves nothing to vary",
    ]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({"sampling.stps": [1]}, "unknown key; did you mean 'sampling.steps'?"),
        ({"steps": [1]}, "unknown key; did you mean 'sampling.steps'?"),
        ({"output.dir": ["a"]}, "unknown key; known are sampling.steps,"),
        ({"sampling.steps": 5}, "must be a list of values or range(start, stop, step)"),
        ({"sampling.steps": []}, "needs at least one value"),
        ({"sampling.steps": "5, 6"}, "must be a list of values or range(start, stop, step)"),
        ({"sampling.steps": "range(5, 1)"}, "is empty"),
        ({"sampling.steps": "range(1, 5, 0)"}, "is empty"),
        ({"sampling.steps": "range(a, b)"}, "a range takes numbers"),
        ({"sampling.steps": "range(0, 1e999)"}, "a number is out of range"),
        ({"sampling.steps": [1], "sampling.steps+seed": [[1, 2]]}, "sampling.steps is varied twice"),
        ({"sampling.steps+seed": [[1, 2], [3]]}, "step 1 must be a list of 2 values"),
        ({"seed": [2**53]}, "is out of range; seeds run from 0"),
        ({"prompts.tags": ["a"]}, "must be"),
    ],
)
def test_a_bad_axis_is_explained(grid: dict[str, Any], expected: str) -> None:
    (fault,) = faults_of(grid)
    assert fault.startswith("grid.")
    assert expected in fault.replace("should be", "must be")


def test_more_than_ten_million_combinations_are_refused() -> None:
    assert faults_of({"seed": "range(0, 10000000)", "sampling.steps": [1, 2]}) == [
        "grid: 10,000,000 x 2 is 20,000,000 combinations, more than 10,000,000; take values out"
    ]
