"""From a configuration to jobs: order, precedence, counts and ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.config.batch_config import BatchConfig
from jobs.config.sections import Sampling
from jobs.planning.expand import Expansion
from jobs.prompts.open_prompts import open_prompts
from jobs.prompts.templates import Wildcards
from pipeline.errors import ConfigError
from pipeline.request import Likeness, MemorySettings, ModelSettings
from pipeline.request_id import request_id as job_id

ROOT = Path(__file__).parents[3]
MODEL = ModelSettings(name="demo", source="demo", sha256="a" * 64, architecture="sd")
FALLBACK = Sampling(steps=30, guidance_scale=7.0, width=64, height=64, scheduler="Euler")


def expand(lines: list[Any] | None = None, folder: Path | None = None, **keys: Any) -> Expansion:
    prompts = {"lines": lines if lines is not None else ["a red house"], **keys.pop("prompts", {})}
    config = BatchConfig.model_validate(
        {"model": {"source": "demo"}, "memory": {"level": "none"}, "prompts": prompts, **keys}
    )
    wildcards = Wildcards([folder] if folder else [])
    return Expansion(config, 3, open_prompts(config.prompts), wildcards, MODEL, MemorySettings(), FALLBACK)


def faults_of(*arguments: Any, **keys: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        expand(*arguments, **keys)
    return list(caught.value.faults)


def test_prompts_then_variants_then_grid_then_seeds() -> None:
    jobs = list(
        expand(
            ["{a|b}", "c"],
            prompts={"variants": {"mode": "combinatorial"}},
            grid={"sampling.steps": [10, 20]},
            seeds=[1, 2],
        )
    )
    shown = [(job.request.prompt, job.request.steps, job.request.seed) for job in jobs]
    assert shown[:5] == [("a", 10, 1), ("a", 10, 2), ("a", 20, 1), ("a", 20, 2), ("b", 10, 1)]
    assert [prompt for prompt, _, _ in shown] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert [job.prompt_index for job in jobs] == [0] * 8 + [1] * 4


def test_a_prompts_own_values_win_over_grid_over_batch_over_model_over_fallback() -> None:
    lines = ["plain", {"text": "own", "steps": 5, "negative_prompt": "mine", "seeds": [9]}]
    plain, own = expand(
        lines,
        prompts={"negative_prompt": "all"},
        model={"source": "demo", "sampling": {"guidance_scale": 4.0, "steps": 2, "width": 96}},
        sampling={"steps": 3, "width": 128},
        grid={"sampling.steps": [10], "seed": [1]},
    )
    request = plain.request
    assert (request.steps, request.width, request.guidance_scale, request.height) == (10, 128, 4.0, 64)
    assert (request.scheduler, request.clip_skip, request.seed, request.negative_prompt) == ("Euler", None, 1, "all")
    assert (own.request.steps, own.request.seed, own.request.negative_prompt) == (5, 9, "mine")
    assert own.request.width == 128


def test_texts_around_a_prompt_and_tags() -> None:
    (job,) = expand(
        [{"text": "a house", "tags": ["x", "t"]}], prompts={"prefix": "oil, ", "suffix": "!", "tags": ["t"]}
    )
    assert (job.request.prompt, job.tags) == ("oil, a house!", ("t", "x"))
    jobs = list(
        expand(
            [{"text": "{a|b}", "tags": ["x"]}],
            prompts={"prefix": "unused", "suffix": "!", "tags": ["t"], "variants": {"count": 3}},
            grid={"prompts.prefix": ["ink ", "oil "], "prompts.tags": [["g"]], "prompts.negative_prompt": ["n"]},
        )
    )
    # The grid's texts stand around the same variants.
    assert [job.request.prompt.removeprefix("ink ") for job in jobs[::2]] == [
        job.request.prompt.removeprefix("oil ") for job in jobs[1::2]
    ]
    assert jobs[1].prompt_template == "oil {a|b}!"
    assert {(job.tags, job.request.negative_prompt) for job in jobs} == {(("g", "x"), "n")}


def test_template_and_result_are_both_kept() -> None:
    plain, template, escaped = expand(["a (red:1.2) house ${x}", "a {red|red} house", r"a \{red\} house"])
    assert (plain.request.prompt, plain.prompt_template) == ("a (red:1.2) house ${x}", None)
    assert (template.request.prompt, template.prompt_template) == ("a red house", "a {red|red} house")
    assert (escaped.request.prompt, escaped.prompt_template) == ("a {red} house", r"a \{red\} house")
    (literal,) = expand(["a {red|blue} __house__"], prompts={"variants": {"mode": "literal"}})
    assert (literal.request.prompt, literal.prompt_template) == ("a {red|blue} __house__", None)


def test_a_random_prompt_does_not_depend_on_the_others(tmp_path: Path) -> None:
    (tmp_path / "colour.txt").write_text("red\ngreen\nblue\nwhite\n")
    line = "a __colour__ {house|boat|tree}"
    alone = [job.request.prompt for job in expand([line], tmp_path, prompts={"variants": {"count": 5}})]
    among = expand(["x {a|b}", line, "{c|d}"], tmp_path, prompts={"variants": {"count": 8}})
    assert [job.request.prompt for job in among][8:13] == alone


def test_where_a_job_comes_from() -> None:
    (job,) = expand(name="study", prompts={"name": "mine"})
    assert (job.name, job.prompt_set, job.config_index) == ("study", "mine", 3)
    assert job.prompt_place == "prompt 1 of mine"
    (job,) = expand([{"text": "a", "name": "own"}], name="study")
    assert job.name == "own"


def test_equal_content_gives_equal_ids() -> None:
    jobs = list(expand(["a", "a", {"text": "a", "steps": 30, "name": "n", "tags": ["t"]}]))
    assert len({job.id for job in jobs}) == 1


def test_all_faults_are_reported_together() -> None:
    faults = faults_of(
        ["fine", "a {b", "a __c__"],
        grid={"sampling.steps": [0]},
    )
    assert faults[0] == "grid.sampling.steps[0]: must be a whole number from 1 to 1000 (got 0)"
    assert faults[1].startswith("prompts.lines[1]: '{' at character 3 is never closed")
    assert faults[2].startswith("prompts.lines[2]: unknown wildcard __c__; there are none")


def test_templates_in_a_grid_are_refused() -> None:
    assert faults_of(grid={"prompts.prefix": ["a ", "{b|c} "]}) == [
        "grid.prompts.prefix[1]: takes no {a|b} or __wildcard__; list the texts one by one"
    ]


def test_more_than_ten_million_jobs_are_refused() -> None:
    assert faults_of(["a", "b"], seeds={"start": 0, "count": 6_000_000}) == [
        "12,000,000 jobs, more than 10,000,000; use fewer prompts, variants, seeds or grid values"
    ]
    (fault,) = faults_of(["{a|b|c|d|e|f|g|h|i|j}" * 9], prompts={"variants": {"mode": "combinatorial"}})
    assert "prompts.lines[0]: stands for 1,000,000,000 combinations" in fault


SETS = sorted(path for path in (ROOT / "conf" / "prompts").glob("*.yaml") if path.stem != "prompt")
"""Without the one whose only line is given on the command line."""


@pytest.mark.parametrize("option", SETS, ids=lambda path: path.stem)
def test_every_shipped_prompt_set_expands(option: Path) -> None:
    prompts = yaml.safe_load(option.read_text())
    assert prompts["name"] == option.stem
    config = BatchConfig.model_validate({"model": {"source": "demo"}, "memory": {"level": "none"}, "prompts": prompts})
    source = open_prompts(config.prompts, [option.parent])
    wildcards = Wildcards([ROOT / "conf" / "wildcards"])
    jobs = list(Expansion(config, 0, source, wildcards, MODEL, MemorySettings(), FALLBACK))
    assert len(jobs) >= 3
    assert option.read_text().startswith("# ")
    assert f"#   python run.py prompts={option.stem}\n" in option.read_text()


line_items = st.one_of(
    st.sampled_from(["a house", "a {red|blue} boat", "{2$$a|b|c} tree"]),
    st.fixed_dictionaries(
        {"text": st.sampled_from(["a house", "a {red|blue} boat"])},
        optional={
            "steps": st.integers(1, 3),
            "seeds": st.lists(st.integers(0, 5), min_size=1, max_size=3),
            "negative_prompt": st.sampled_from(["", "people"]),
        },
    ),
)
grids = st.fixed_dictionaries(
    {},
    optional={
        "sampling.steps": st.lists(st.integers(1, 5), min_size=1, max_size=3),
        "prompts.suffix": st.just(["", ", oil"]),
        "seed": st.just([1, 2]),
        "sampling.width+sampling.height": st.just([[64, 64], [72, 64]]),
    },
)
variants = st.fixed_dictionaries(
    {"mode": st.sampled_from(["random", "combinatorial", "cyclic"]), "count": st.sampled_from([None, 1, 3])}
)
batches = st.fixed_dictionaries(
    {
        "lines": st.lists(line_items, min_size=1, max_size=4),
        "grid": grids,
        "seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
        "prompts": st.fixed_dictionaries({"variants": variants}),
    }
)


@given(batches)
def test_length_iteration_keys_and_random_access_agree(batch: dict[str, Any]) -> None:
    expansion = expand(**batch)
    jobs = list(expansion)
    assert len(expansion) == len(jobs)
    assert [expansion.job(index) for index in reversed(range(len(jobs)))] == jobs[::-1]
    assert [(job_id.hex(), *likeness, adapters) for job_id, likeness, adapters, _ in expansion.iter_keys()] == [
        (job.id, *(getattr(job.request, key) for key in Likeness._fields), job.request.adapters) for job in jobs
    ]
    for index in (-1, len(jobs)):
        with pytest.raises(IndexError):
            expansion.job(index)


@given(batches)
def test_ids_differ_if_and_only_if_the_requests_do(batch: dict[str, Any]) -> None:
    jobs = list(expand(**batch))
    assert len({job.id for job in jobs}) == len({job.request for job in jobs})
    assert all(job.id == job_id(job.request) for job in jobs)


@given(batches)
def test_a_new_value_on_an_axis_keeps_the_old_jobs(batch: dict[str, Any]) -> None:
    before = {job.id for job in expand(**batch)}
    batch["seeds"] = [*batch["seeds"], 77]
    if "sampling.steps" in batch["grid"]:
        batch["grid"]["sampling.steps"] = [99, *batch["grid"]["sampling.steps"]]
    batch["lines"] = ["another", *batch["lines"]]
    after = {job.id for job in expand(**batch)}
    assert before < after
