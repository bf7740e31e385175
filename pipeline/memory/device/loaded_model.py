"""A loaded model as data: the pipeline, its memory techniques, and what has been applied to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.request import NO_ADAPTERS, Adapters, LoraMatch, MemorySettings, ModelSettings, SpeedSettings
from pipeline.storage.file_state import FileStates

if TYPE_CHECKING:
    import torch

    from pipeline.memory.device.embedding_cache import EmbeddingCache
    from pipeline.memory.device.pool import Pool
    from pipeline.weights.model_files import ModelFiles


class AppliedAdapters(Protocol):
    """What `pipeline.adapters` has applied to a model."""

    controlnets: dict[str, Any]
    """The loaded ControlNets by the SHA-256 of their weights."""

    @property
    def seen(self) -> Mapping[tuple[str | None, ...], tuple[Any, Any]]:
        """The conditions that IP-Adapters computed from their pictures, with and without them, by hashes."""

    def remove(self, model: LoadedModel, component: str | None = None) -> None:
        """Remove all adapters from a model, or from one of its components."""


@dataclass(slots=True)
class LoadedModel:
    """A diffusers pipeline, its memory techniques, and cached results of its components.

    `own_scheduler` came with the weights; batches get fresh ones made from it, since schedulers keep state.
    `applied` is what is on the model now, `lora_matches` how its LoRAs matched; `views` are pipelines of other classes
    over the same components; `dropped` names encoders that were freed. `stage_peaks` are bytes per stage. `adapters`
    is what `pipeline.adapters` has applied and knows how to remove. `fell_back`: how the model was planned to be held,
    and how it is since memory ran out; where `memory` is not the latter, it is held by another plan. `warm`: kinds and
    sizes of batches that were made on it, of which further ones take their usual time. `read`: its files.
    `load_component` loads a component of it again, by its name, as `memory` says.
    """

    pipe: Any
    settings: ModelSettings
    memory: MemorySettings
    device: torch.device
    dtype: torch.dtype
    load_seconds: float
    own_scheduler: Any
    files: ModelFiles
    pool: Pool
    embeddings: EmbeddingCache
    speed: SpeedSettings
    applied: Adapters = NO_ADAPTERS
    lora_matches: tuple[LoraMatch, ...] = ()
    stage_peaks: dict[str, dict[str, int]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    adapters: AppliedAdapters | None = None
    fell_back: tuple[MemorySettings, MemorySettings] | None = None
    warm: set[Hashable] = field(default_factory=set)
    read: FileStates = field(default_factory=dict)
    load_component: Callable[[LoadedModel, str], Any] = field(kw_only=True)
