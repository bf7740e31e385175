"""What the Python API is given, checked before a picture is made. Batches have a border of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pipeline.errors import ConfigError
from pipeline.memory.choice import CLASSES
from pipeline.memory.techniques import TECHNIQUES
from pipeline.request import MAX_SEED, DType

if TYPE_CHECKING:
    from pipeline.adapters.asked import AskedAdapters

MIN_SIDE, MAX_SIDE = 16, 4096
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_WEIGHT = 10.0
MAX_STRENGTH = 2.0
MAX_GIGABYTES = 4096.0

Asked = TypeVar("Asked")

_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


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
    adapters: AskedAdapters,
    text_layers: int | None,
) -> None:
    """Raises `ConfigError` with one line per fault: what, what was expected, what was given."""
    faults = [
        *_text_faults("prompt", prompt),
        *_text_faults("negative_prompt", negative_prompt),
        *_number_faults("seed", seed, 0, MAX_SEED),
        *_number_faults("steps", steps, 1, MAX_STEPS),
        *_side_faults("width", width),
        *_side_faults("height", height),
    ]
    faults += _range_faults("guidance_scale", guidance_scale, 0, MAX_GUIDANCE)
    if clip_skip is not None:
        faults += _number_faults("clip_skip", clip_skip, 1, text_layers or 12)
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
    if budget_gb is not None and (_is_no_number(budget_gb) or not 0 < budget_gb <= MAX_GIGABYTES):
        faults.append(f"budget_gb: must be a number above 0, up to {MAX_GIGABYTES:g} (got {budget_gb!r})")
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


def _adapter_faults(asked: AskedAdapters) -> Iterator[str]:
    for place, lora in enumerate(asked.loras):
        yield from _path_faults(f"loras[{place}]", lora.source)
        yield from _range_faults(f"loras[{place}]: weight", lora.weight, -MAX_WEIGHT, MAX_WEIGHT)
    for place, embedding in enumerate(asked.embeddings):
        yield from _path_faults(f"embeddings[{place}]", embedding.source)
    for place, controlnet in enumerate(asked.controlnets):
        where = f"controlnets[{place}]"
        yield from _path_faults(where, controlnet.source)
        yield from _path_faults(f"{where}: image", controlnet.image)
        yield from _choice_faults(f"{where}: preprocess", controlnet.preprocess, ("none", "canny"))
        yield from _range_faults(f"{where}: strength", controlnet.strength, 0, MAX_STRENGTH)
        shares = [*_range_faults(f"{where}: start", controlnet.start, 0, 1)]
        shares += _range_faults(f"{where}: end", controlnet.end, 0, 1)
        yield from shares
        if not shares and controlnet.start >= controlnet.end:
            yield f"{where}: start must lie before end (got {controlnet.start:g} and {controlnet.end:g})"
    for place, ip_adapter in enumerate(asked.ip_adapters):
        yield from _path_faults(f"ip_adapters[{place}]", ip_adapter.source)
        yield from _path_faults(f"ip_adapters[{place}]: image", ip_adapter.image)
        yield from _range_faults(f"ip_adapters[{place}]: scale", ip_adapter.scale, 0, MAX_STRENGTH)
    if asked.init is not None:
        yield from _path_faults("init_image", asked.init.image)
        if _is_no_number(asked.init.strength) or not 0 < asked.init.strength <= 1:
            yield f"strength: must be a number above 0, up to 1 (got {asked.init.strength!r})"


def _path_faults(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str | Path):
        yield f"{key}: must be a path (got {value!r})"


def _choice_faults(key: str, value: Any, choices: Sequence[str]) -> Iterator[str]:
    if value not in choices:
        yield f"{key}: must be one of {', '.join(choices)} (got {value!r})"


def _range_faults(key: str, value: Any, least: float, most: float) -> Iterator[str]:
    if _is_no_number(value) or not least <= value <= most:
        yield f"{key}: must be a number from {least:g} to {most:g} (got {value!r})"


def _text_faults(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{key}: must be text (got {value!r})"
    elif found := _REFUSED.search(value):
        yield f"{key}: holds the character U+{ord(found[0]):04X} at {found.start()}, which no prompt can have"


def _number_faults(key: str, value: Any, least: int, most: int) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        yield f"{key}: must be a whole number from {least} to {most} (got {value!r})"


def _side_faults(key: str, value: Any) -> Iterator[str]:
    faults = list(_number_faults(key, value, MIN_SIDE, MAX_SIDE))
    yield from faults
    if not faults and value % 8:
        yield f"{key}: must be a multiple of 8 pixels (got {value})"


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "EI" else f"a {name}"


def _is_no_number(value: Any) -> bool:
    return isinstance(value, bool) or not isinstance(value, int | float)
