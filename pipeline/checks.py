"""What the Python API is given, checked before a picture is made. Batches have a border of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pipeline.errors import ConfigError
from pipeline.memory.planning.choice import CLASSES
from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.ranges import (
    CLIP_SKIP,
    GIGABYTES,
    GUIDANCE,
    INIT_STRENGTH,
    SEED,
    SHARE,
    STEPS,
    STRENGTH,
    WEIGHT,
    side_fault,
    text_fault,
)
from pipeline.request import DType

if TYPE_CHECKING:
    from pipeline.adapters.specs import AdapterSpecs

Asked = TypeVar("Asked")


def check_request(
    *,
    prompt: Any,
    negative_prompt: Any,
    seed: Any,
    steps: Any,
    guidance_scale: Any,
    width: Any,
    height: Any,
    clip_skip: Any,
    adapters: AdapterSpecs,
    max_clip_skip: int | None,
) -> None:
    """Raises `ConfigError` with one line per fault: what, what was expected, what was given."""
    faults = [
        *_text_faults("prompt", prompt),
        *_text_faults("negative_prompt", negative_prompt),
        *_faults("seed", seed, SEED.fault),
        *_faults("steps", steps, STEPS.fault),
        *_faults("width", width, side_fault),
        *_faults("height", height, side_fault),
        *_faults("guidance_scale", guidance_scale, GUIDANCE.fault),
    ]
    if clip_skip is not None:
        most = CLIP_SKIP.most if max_clip_skip is None else min(max_clip_skip, CLIP_SKIP.most)
        faults += _faults("clip_skip", clip_skip, replace(CLIP_SKIP, most=most).fault)
    faults += _adapter_faults(adapters)
    if faults:
        raise ConfigError(faults)


def check_memory(*, dtype: Any, memory: Any, budget_gb: Any, quality: Any, techniques: Any) -> None:
    """The same for how a model is to be held."""
    faults = [
        *_choice_faults("dtype", dtype, ("auto", *get_args(DType))),
        *_choice_faults("memory", memory, ("auto", *CLASSES)),
        *_choice_faults("quality", quality, ("any", "exact")),
    ]
    if budget_gb is not None:
        faults += _faults("budget_gb", budget_gb, GIGABYTES.fault)
    if techniques is not None:
        if not isinstance(techniques, Mapping):
            faults.append(
                f"techniques: must be names with True or False, as in {{'vae_tiling': True}} (got {techniques!r})"
            )
        else:
            switches = tuple(name for name in TECHNIQUES if name != "half_precision")
            for name, value in techniques.items():
                faults += _choice_faults("techniques", name, switches)
                if not isinstance(value, bool):
                    faults.append(f"techniques[{name!r}]: must be True or False (got {value!r})")
    if faults:
        raise ConfigError(faults)


def asked_each(key: str, kind: type[Asked], entries: Any) -> tuple[Asked, ...]:
    """The entries of a list of adapters as what they are; a path, or a tuple that begins with one, stands for one."""
    if isinstance(entries, str | Path | Mapping | kind) or not isinstance(entries, Sequence):
        raise ConfigError(f"{key}: must be a list, also of one (got {entries!r})")
    found = []
    for place, entry in enumerate(entries):
        try:
            one = entry if isinstance(entry, kind) else kind(*(entry if isinstance(entry, tuple) else (entry,)))
        except TypeError:
            expected = f"must be {_a(kind.__name__)}, or a tuple with its values in order"
            raise ConfigError(f"{key}[{place}]: {expected} (got {entry!r})") from None
        found.append(one)
    return tuple(found)


def _adapter_faults(asked: AdapterSpecs) -> Iterator[str]:
    for place, lora in enumerate(asked.loras):
        yield from _path_faults(f"loras[{place}]", lora.source)
        yield from _faults(f"loras[{place}]: weight", lora.weight, WEIGHT.fault)
    for place, embedding in enumerate(asked.embeddings):
        yield from _path_faults(f"embeddings[{place}]", embedding.source)
    for place, controlnet in enumerate(asked.controlnets):
        where = f"controlnets[{place}]"
        yield from _path_faults(where, controlnet.source)
        yield from _path_faults(f"{where}: image", controlnet.image)
        yield from _choice_faults(f"{where}: preprocess", controlnet.preprocess, ("none", "canny"))
        yield from _faults(f"{where}: strength", controlnet.strength, STRENGTH.fault)
        shares = [*_faults(f"{where}: start", controlnet.start, SHARE.fault)]
        shares += _faults(f"{where}: end", controlnet.end, SHARE.fault)
        yield from shares
        if not shares and controlnet.start >= controlnet.end:
            yield f"{where}: start must lie before end (got {controlnet.start:g} and {controlnet.end:g})"
    for place, ip_adapter in enumerate(asked.ip_adapters):
        yield from _path_faults(f"ip_adapters[{place}]", ip_adapter.source)
        yield from _path_faults(f"ip_adapters[{place}]: image", ip_adapter.image)
        yield from _faults(f"ip_adapters[{place}]: scale", ip_adapter.scale, STRENGTH.fault)
    if asked.init is not None:
        yield from _path_faults("init_image", asked.init.image)
        yield from _faults("strength", asked.init.strength, INIT_STRENGTH.fault)


def _path_faults(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str | Path):
        yield f"{key}: must be a path (got {value!r})"


def _choice_faults(key: str, value: Any, choices: Sequence[str]) -> Iterator[str]:
    if value not in choices:
        yield f"{key}: must be one of {', '.join(choices)} (got {value!r})"


def _faults(key: str, value: Any, fault_of: Callable[[Any], str | None]) -> Iterator[str]:
    if fault := fault_of(value):
        yield f"{key}: {fault} (got {value!r})"


def _text_faults(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{key}: must be text (got {value!r})"
    elif fault := text_fault(value):
        yield f"{key}: {fault}"


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "EI" else f"a {name}"
