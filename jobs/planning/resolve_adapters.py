"""Finds, checks and hashes the adapters of a configuration, for every combination of its grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.config.batch_config import BatchConfig
from jobs.planning.adapter_axes import changed
from pipeline.adapters.identify import identify_adapters
from pipeline.adapters.specs import AdapterSpecs, LoraSpec
from pipeline.errors import ConfigError
from pipeline.request import NO_ADAPTERS, Adapters, LoraWeights

if TYPE_CHECKING:
    from pipeline.weights.inspection import ModelFiles


class AdapterSource:
    """The adapters of one configuration for the values that its grid gives them; each combination is resolved once."""

    def __init__(self, config: BatchConfig, files: ModelFiles) -> None:
        self._specs, self._init, self._files = config.adapters.specs, config.init, files
        self._known: dict[str, Adapters] = {}
        self.empty = self._specs == AdapterSpecs() and self._init.image is None

    @property
    def loras(self) -> dict[str, LoraWeights]:
        """All LoRAs of the resolved combinations, by hash."""
        return {lora.sha256: lora for adapters in self._known.values() for lora in adapters.loras}

    def get(self, values: Sequence[tuple[str, Any]] = (), chosen: Sequence[LoraSpec] = ()) -> Adapters:
        """The adapters with some keys changed, and chosen LoRAs beside. Raises `ConfigError` with all their faults."""
        if not values and self.empty and not chosen:
            return NO_ADAPTERS
        key = json.dumps((values, [(one.source, one.weight) for one in chosen]))
        if key not in self._known:
            self._known[key] = self._identified(values, chosen)
        return self._known[key]

    def _identified(self, values: Sequence[tuple[str, Any]], chosen: Sequence[LoraSpec]) -> Adapters:
        try:
            specs, init = changed(self._specs, self._init, values)
        except ValueError as error:
            raise ConfigError(str(error).splitlines()[0]) from None
        specs = specs.model_copy(update={"loras": [*specs.loras, *chosen]})
        return identify_adapters(specs, init, self._files, prefix="adapters.")
