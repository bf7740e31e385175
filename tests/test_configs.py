"""Every option in `conf/` composes, validates and is trusted; every key has its place there, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import BaseModel

from jobs.config.batch_config import BatchConfig, parse_configs
from jobs.config.trust import check_interpolations, check_trust
from jobs.manifest.job_states import JobStates
from jobs.planning.memory_levels import levels
from jobs.planning.plan import Plan
from jobs.running.main import validate
from pipeline.memory.planning.choice import ALWAYS_ON, CLASSES

CONF = Path(__file__).resolve().parents[1] / "conf"
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml") if path.parent.name != "local"
)
NEEDED = {
    **{option: ["dry_run=true"] for option in OPTIONS if option.startswith("model/") and not option.endswith("demo")},
    "model/custom": ["model.source=demo"],
}
"""What an option leaves to the user; of weights that are not here, a dry run knows the published sizes."""


def compose_config(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", [*overrides])
    check_interpolations(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def test_groups_are_those_of_the_design() -> None:
    groups = {option.partition("/")[0] for option in OPTIONS}
    assert groups == {"prompts", "model", "memory", "sampling", "naming", "metadata", "engine", "experiment"}
    expected = {
        *("memory/none", "memory/balanced", "memory/aggressive", "memory/ultra", "memory/auto"),
        *("naming/standard", "naming/descriptive", "naming/guid", "naming/custom"),
        *("metadata/full", "metadata/minimal", "metadata/private", "engine/local", "model/demo", "model/custom"),
        *("sampling/default", "sampling/draft", "sampling/quality", "prompts/demo", "prompts/batch1"),
        *("prompts/wildcards", "prompts/from_file"),
    }
    assert expected <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_has_jobs(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # files of prompts are found beside the option, not by luck in the working folder
    group, _, name = option.partition("/")
    config = compose_config(f"{group}={name}", *NEEDED.get(option, []), "engine.device=cpu")
    batch = validate([config], [CONF])
    plan = Plan(batch.expansions, JobStates(), batch.plans)
    assert plan.requested >= plan.to_make > 0 and plan.loads == plan.minimum_loads == 1
    if group == "memory":
        assert batch.first.memory.level == name
    if option == "experiment/dataset_1000":
        assert plan.requested == 1000


def test_levels_of_the_python_api_are_those_of_their_files() -> None:
    found = levels(CONF)
    on = {
        name: tuple(key for key, value in level["techniques"].items() if value is True) for name, level in found.items()
    }
    assert {name: techniques for name, techniques in on.items() if techniques} == ALWAYS_ON
    assert set(found) == {"auto", *CLASSES}
    assert not [name for name, level in found.items() if False in level["techniques"].values()]


@pytest.mark.parametrize("level", ["auto", *CLASSES])
def test_a_level_is_read_as_it_is_composed(level: str) -> None:
    assert levels(CONF)[level] == compose_config(f"memory={level}")["memory"]


def test_our_own_options_are_trusted() -> None:
    check_trust([CONF], CONF / "config.yaml")


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """`prompts.variants.mode` and so on, down to what is no model any more."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and name not in ("sampling",) * bool(prefix):
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def keys_in(document: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        if (
            isinstance(value, dict)
            and value
            and prefix + name not in ("grid", "seeds", "model.sampling", "model.parameters")
        ):
            yield from keys_in(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_key_has_a_place_in_conf_and_the_reverse() -> None:
    written: dict[str, str] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.name
        if group == "local":
            continue
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        prefix = "memory." if path.stem == "memory_base" else "" if group in ("conf", "experiment") else f"{group}."
        own = {name: value for name, value in document.items() if name not in ("defaults", "hydra")}
        for key in keys_in(own, prefix):
            written[key] = path.name
    known = set(keys_of(BatchConfig))
    assert set(written) - known == set(), "keys that mean nothing"
    assert known - set(written) == set(), "keys that no file in conf/ shows"


def test_every_option_says_how_to_use_it() -> None:
    for option in OPTIONS:
        text = (CONF / f"{option}.yaml").read_text(encoding="utf-8")
        lines = text.splitlines()
        assert text.startswith("# "), f"{option} begins with a comment"
        commented = sum("#" in line for line in lines)
        assert commented >= 1 + (len(lines) > 6), f"{option} explains its keys"


def test_the_whole_composition_is_valid() -> None:
    (config,) = parse_configs([compose_config()])
    assert config.title == "demo" and config.output.dir == "outputs" and config.resume
