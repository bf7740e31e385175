"""Plans of models that need not exist."""

from __future__ import annotations

from typing import Any

from jobs.config.batch_config import parse_configs
from jobs.config.sections import Sampling
from jobs.manifest.job_states import JobStates
from jobs.planning.expand import Expansion
from jobs.planning.groups import Fit
from jobs.planning.plan import Plan, PlanSettings
from jobs.prompts.open_prompts import open_prompts
from jobs.prompts.templates import Wildcards
from pipeline.request import Adapters, Likeness, MemorySettings, ModelSettings

FALLBACK = Sampling(steps=20, guidance_scale=5.0, width=64, height=64, scheduler="DDIM")


def model(name: str) -> ModelSettings:
    return ModelSettings(name, name, (name.encode().hex() * 64)[:64], "StableDiffusionPipeline")


def plan_of(
    *configs: dict[str, Any],
    models: tuple[str, ...] = ("one",),
    states: JobStates | None = None,
    batch_size: int = 8,
    max_batch_pixels: int | None = None,
    **settings: Any,
) -> Plan:
    """The plan of configurations, which take the models of these names in turn."""

    def fit(likeness: Likeness, _adapters: Adapters) -> Fit:
        pixels = likeness.width * likeness.height
        most = batch_size if max_batch_pixels is None else max(1, min(batch_size, max_batch_pixels // pixels))
        return Fit(MemorySettings(), most)

    parsed = parse_configs([{"model": {"source": "demo"}, "memory": {"level": "none"}, **one} for one in configs])
    expansions, plans = [], []
    for index, config in enumerate(parsed):
        weights, memory = model(models[index % len(models)]), MemorySettings()
        expansions.append(
            Expansion(config, index, open_prompts(config.prompts), Wildcards(), weights, memory, FALLBACK)
        )
        plans.append(PlanSettings(weights, memory, fit, **settings))
    return Plan(expansions, states or JobStates(), plans)


def batch(*lines: Any, **keys: Any) -> dict[str, Any]:
    """The configuration of these prompts."""
    return {"prompts": {"lines": list(lines)}, **keys}
