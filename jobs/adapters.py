"""The adapters of a configuration: found, checked against the model and hashed, for every point of its grid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.adapter_axes import changed
from jobs.config import BatchConfig
from jobs.sections import AdapterSets, Init
from pipeline.adapters import (
    check_adapters,
    identify_controlnet,
    identify_embedding,
    identify_init,
    identify_ip_adapter,
    identify_lora,
)
from pipeline.errors import ConfigError, DarkroomError
from pipeline.request import NO_ADAPTERS, Adapters

if TYPE_CHECKING:
    from pipeline.models.inspection import ModelFiles


class AdapterSource:
    """Adapters of one configuration by what its grid changes of them; each combination is looked up once."""

    def __init__(self, config: BatchConfig, files: ModelFiles) -> None:
        self._sets, self._init, self._files = config.adapters, config.init, files
        self._known: dict[str, Adapters] = {}
        self.empty = self._sets == AdapterSets() and self._init.image is None

    def get(self, values: Sequence[tuple[str, Any]] = ()) -> Adapters:
        """The adapters with some keys changed. Raises `ConfigError` with all that is wrong with them."""
        if not values and self.empty:
            return NO_ADAPTERS
        key = json.dumps(values)
        if key not in self._known:
            self._known[key] = self._identified(values)
        return self._known[key]

    def _identified(self, values: Sequence[tuple[str, Any]]) -> Adapters:
        try:
            sets, init = changed(self._sets, self._init, values)
        except ValueError as error:
            raise ConfigError(str(error).splitlines()[0]) from None
        faults: list[str] = []
        loras = _each("adapters.loras", sets.loras, self._lora, faults)
        embeddings = _each("adapters.embeddings", sets.embeddings, self._embedding, faults)
        controlnets = _each("adapters.controlnets", sets.controlnets, self._controlnet, faults)
        ip_adapters = _each("adapters.ip_adapters", sets.ip_adapters, self._ip_adapter, faults)
        starts = _each("init", [init] if init.image is not None else [], self._start, faults)
        adapters = Adapters(
            # A LoRA of weight 0 is none: the picture is that without it, and is made once.
            loras=tuple(lora for lora in loras if lora.weight),
            embeddings=tuple(embeddings),
            controlnets=tuple(controlnets),
            ip_adapters=tuple(ip_adapters),
            init=starts[0] if starts else None,
        )
        if not faults:
            faults += check_adapters(adapters, self._files)
        if faults:
            raise ConfigError(faults)
        return adapters

    def _lora(self, one: Any) -> Any:
        return identify_lora(one.source, weight=one.weight, files=self._files, name=one.name)

    def _embedding(self, one: Any) -> Any:
        token = one.token or Path(one.source).stem
        return identify_embedding(one.source, token=token, files=self._files, name=one.name)

    def _controlnet(self, one: Any) -> Any:
        values = one.model_dump(exclude={"source"})
        return identify_controlnet(one.source, files=self._files, **values)

    def _ip_adapter(self, one: Any) -> Any:
        values = one.model_dump(exclude={"source"})
        return identify_ip_adapter(one.source, files=self._files, **values)

    def _start(self, one: Init) -> Any:
        return identify_init(one.image or "", strength=one.strength, files=self._files)


def _each(key: str, entries: Sequence[Any], identify: Any, faults: list[str]) -> list[Any]:
    """Each entry identified; those at fault are named with their place."""
    return list(_sound(key, entries, identify, faults))


def _sound(key: str, entries: Sequence[Any], identify: Any, faults: list[str]) -> Iterator[Any]:
    for place, entry in enumerate(entries):
        where = key if key == "init" else f"{key}[{place}]"
        try:
            yield identify(entry)
        except DarkroomError as error:
            faults += [f"{where}: {line}" for line in str(error).splitlines()]
