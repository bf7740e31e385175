"""Batches for measurements that call `jobs` directly: composed by Hydra from `conf/`, as `run.py` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT
from jobs.engines.messages import WorkerSettings
from jobs.manifest.job_states import read_states
from jobs.planning.plan import Plan
from jobs.planning.validation import Batch, validate
from pipeline.request import SpeedSettings

CONF = ROOT / "conf"

# The demo model's words; `examples.demo_model.postcards` has them too, but would bring numpy and Pillow along.
PLACES = ("sea", "mountains", "hills", "desert", "forest")
TIMES = ("day", "dawn", "sunset", "night")
OBJECTS = ("house", "boat", "tree")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration that these arguments of the command line stand for, as plain data."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("own_options", list, replace=True)  # none of whoever measures
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def batch_of(*overrides: str) -> Batch:
    """The validated batch of these arguments."""
    return validate([composed(*overrides)], [CONF])


def plan_of(batch: Batch) -> Plan:
    """What `jobs.running.main.run` plans for a batch."""
    return Plan(batch.expansions, read_states(Path(batch.first.output.dir)), batch.plans)


def worker_settings(batch: Batch, known_parts: frozenset[str] = frozenset()) -> WorkerSettings:
    """What `jobs.running.main.run` tells its worker, except that no fresh process takes over in the middle."""
    engine = batch.first.engine
    return WorkerSettings(
        output_dir=str(Path(batch.first.output.dir).resolve()),
        run_id="20260101T000000Z-00000000",
        known_parts=known_parts,
        saves=batch.saves,
        device=batch.device.kind,
        cpu_threads=engine.cpu_threads,
        speed=SpeedSettings(attention=engine.attention, compile=engine.compile, channels_last=engine.channels_last),
        read_ahead=engine.read_ahead,
    )


def prompts(count: int) -> list[str]:
    """As many different prompts, all in the demo model's words; a number makes them differ beyond 480."""
    every = [
        f"a {colour} {thing} in {place} at {time}"
        for place in PLACES
        for time in TIMES
        for thing in OBJECTS
        for colour in COLOURS
    ]
    return [every[index % len(every)] + (f", picture {index}" if index >= len(every) else "") for index in range(count)]


def inline_prompts(count: int) -> str:
    """The override for a prompt set written out on the command line, for the demo model: nothing is to be chosen."""
    return f"prompts={{name: bench, model: demo, lines: [{', '.join(prompts(count))}]}}"


def prompt_file(path: Path, count: int) -> list[str]:
    """Write a prompt file; returns the overrides that use it, with the demo model."""
    path.write_text("".join(f"{prompt}\n" for prompt in prompts(count)), encoding="utf-8")
    return ["prompts=from_file", f"prompts.file={path}", "prompts.name=bench", "+prompts.model=demo"]
