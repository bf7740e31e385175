"""Every option in `conf/` composes, validates and is trusted; every key has its place there, and no other."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import BaseModel

from jobs.config.batch_config import BatchConfig, parse_configs
from jobs.config.faults import section_model
from jobs.config.hub_section import Hub
from jobs.config.interpolations import check_interpolations
from jobs.config.sections import Engine, Memory, Metadata, Naming
from jobs.config.trust import check_trust
from jobs.manifest.job_states import JobStates
from jobs.planning.memory_levels import levels
from jobs.planning.plan import Plan
from jobs.running.main import validate
from pipeline.adapters.specs import ControlNetSpec, InitSpec, IpAdapterSpec, LoraSpec
from pipeline.api.pipeline import Pipeline
from pipeline.hubs.hub_settings import HubSettings
from pipeline.memory.planning.choose_techniques import ALWAYS_ON, CLASSES, MAX_BATCH_PIXELS, MAX_BATCH_SIZE
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.naming import NamingSettings
from pipeline.request import ControlNetWeights, InitImage, IpAdapterWeights, LoraWeights, MemoryLevel, SpeedSettings

CONF = Path(__file__).resolve().parents[1] / "conf"
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml") if path.parent.name != "local"
)
NEEDED = {
    **{
        option: ["dry_run=true"]
        for option in OPTIONS
        if option.startswith("model/") and not option.endswith(("demo", "auto"))
    },
    "model/custom": ["model.source=demo"],
    "prompts/prompt": ["prompt='a red house'"],
}
"""What an option leaves to the user; of weights that are not here, a dry run knows the published sizes."""


def compose_config(*overrides: str) -> dict[str, Any]:
    OmegaConf.register_new_resolver("own_options", list, replace=True)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", [*overrides])
    check_interpolations(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def test_groups_are_those_of_the_design() -> None:
    groups = {option.partition("/")[0] for option in OPTIONS}
    parts = {"prompts", "model", "selection", "memory", "sampling", "naming", "metadata", "engine", "experiment"}
    assert groups == parts
    expected = {
        *("memory/none", "memory/balanced", "memory/aggressive", "memory/ultra", "memory/auto"),
        *("naming/standard", "naming/descriptive", "naming/guid", "naming/custom"),
        *("metadata/full", "metadata/minimal", "metadata/private", "engine/local", "model/demo", "model/custom"),
        *("sampling/default", "sampling/draft", "sampling/quality", "prompts/demo", "prompts/batch1"),
        *("prompts/wildcards", "prompts/from_file", "model/auto"),
        *("selection/auto", "selection/rules", "selection/assisted", "selection/manual"),
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
    found = levels()
    on = {
        name: tuple(key for key, value in level["techniques"].items() if value is True) for name, level in found.items()
    }
    assert {name: techniques for name, techniques in on.items() if techniques} == ALWAYS_ON
    assert set(found) == {"auto", *CLASSES} == {*get_args(MemoryLevel)}
    assert {name: level["max_batch_pixels"] for name, level in found.items()} == MAX_BATCH_PIXELS
    assert {level["max_batch_size"] for level in found.values()} == {MAX_BATCH_SIZE}
    assert not [name for name, level in found.items() if False in level["techniques"].values()]


@pytest.mark.parametrize("level", ["auto", *CLASSES])
def test_a_level_is_read_as_it_is_composed(level: str) -> None:
    assert levels()[level] == compose_config(f"memory={level}")["memory"]


def test_a_level_of_ones_own_inherits_as_well(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "mine.yaml").write_text("defaults: [/memory_base, _self_]\nlevel: ultra\nbudget_gb: 3\n")
    check_trust([CONF, tmp_path], CONF / "config.yaml")
    memory = compose_config(f"hydra.searchpath=[file://{tmp_path}]", "memory=mine")["memory"]
    assert memory == compose_config("memory=auto", "memory.level=ultra", "memory.budget_gb=3")["memory"]


def test_our_own_options_are_trusted() -> None:
    check_trust([CONF], CONF / "config.yaml")


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """`prompts.variants.mode` and so on, down to what is no model any more."""
    for name, field in model.model_fields.items():
        inner = section_model(field.annotation)
        if inner is not None and name not in ("sampling",) * bool(prefix):
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
        base = path.stem.removesuffix("_base") if path.stem.endswith("_base") else None
        prefix = f"{base}." if base else "" if group in ("conf", "experiment") else f"{group}."
        for key in keys_in(
            {name: value for name, value in document.items() if name not in ("defaults", "hydra")}, prefix
        ):
            written[key] = path.name
    known = set(keys_of(BatchConfig))
    assert set(written) - known == set(), "keys that mean nothing"
    assert known - set(written) == set(), "keys that no file in conf/ shows"


def defaults_in(model: type[BaseModel], document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each key of a document that has a default in the model as well: its name, that default, and its own value."""
    for name, value in document.items():
        field = model.model_fields[name]
        inner = section_model(field.annotation)
        if inner is not None and isinstance(value, dict):
            yield from defaults_in(inner, value, f"{prefix}{name}.")
        elif not field.is_required():
            yield prefix + name, field.get_default(call_default_factory=True), value


def test_a_default_in_conf_is_that_of_the_model() -> None:
    composed = compose_config("model=custom", "model.source=demo", "naming=custom")
    del composed["prompts"], composed["naming"]["scheme"]  # what options are for
    found = {key: (default, value) for key, default, value in defaults_in(BatchConfig, composed)}
    assert found.pop("seeds") == ([0], 0), "a number is a list of one"
    assert {key: pair for key, pair in found.items() if pair[0] != pair[1]} == {}
    assert {"memory.max_batch_size", "naming.components", "hub.auto_download", "init.strength", "resume"} <= set(found)


def defaults_of(thing: Any) -> dict[str, Any]:
    """Defaults by name of a model, a dataclass or a function, without sections; a list is as good as a tuple."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        found = {name: field.default for name, field in thing.model_fields.items() if not field.is_required()}
    else:
        parameters = inspect.signature(thing).parameters.values()
        found = {one.name: one.default for one in parameters if one.default is not one.empty}
    plain = {name: value for name, value in found.items() if not isinstance(value, BaseModel)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


@pytest.mark.parametrize(
    ("model", "other", "several"),
    [
        (Metadata, MetadataSettings, True),
        (Naming, NamingSettings, True),
        (Hub, HubSettings, True),
        (Engine, SpeedSettings, True),
        (Engine, Pipeline.__init__, False),
        (Memory, Pipeline.__init__, True),
        (InitSpec, Pipeline.generate, False),
        (LoraSpec, LoraWeights, False),
        (ControlNetSpec, ControlNetWeights, True),
        (IpAdapterSpec, IpAdapterWeights, False),
        (InitSpec, InitImage, False),
    ],
)
def test_a_default_is_the_same_for_yaml_and_python(model: Any, other: Any, several: bool) -> None:
    first, second = defaults_of(model), defaults_of(other)
    shared = first.keys() & second.keys()
    assert len(shared) > several, "nothing to compare"
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}


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
