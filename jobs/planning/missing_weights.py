"""Finds the models and adapters that a batch names and that are not on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.config.batch_config import BatchConfig
from jobs.config.sections import Model
from jobs.planning.adapter_axes import changed
from jobs.planning.grid import Grid
from pipeline.errors import ConfigError, ModelError
from pipeline.registry.resolve import is_remote, resolve
from pipeline.weights.references import SCHEMES


@dataclass(frozen=True, slots=True)
class Needed:
    """A reference that a batch names. `noun` is as in `references.resolve`; `where` is its key, if given."""

    reference: str
    noun: str
    where: str = ""

    def fault(self) -> str:
        """The error message for a user who does not have it."""
        try:
            resolve(self.reference, self.noun)
        except ModelError as error:
            return f"{self.where}: {error}" if self.where else str(error)
        return ""


class NotHere(ConfigError):
    """A batch whose only fault is that it needs weights that are not on this machine and that it may fetch."""

    def __init__(self, needs: Sequence[Needed], config: BatchConfig) -> None:
        """`config` is any of the batch, for the keys that hold for the whole run."""
        self.needs, self.config = tuple(needs), config
        super().__init__([one.fault() for one in needs])


class Lacking:
    """Finds missing weights; looks up each reference once, however many configurations name it.

    Plain names and paths are not looked for: what they mean is a matter of this machine alone, and whoever resolves
    them says what is wrong.
    """

    def __init__(self) -> None:
        self._is_remote: dict[tuple[str, str], bool] = {}

    def of(self, config: BatchConfig) -> list[Needed]:
        """The `hf:`, `civitai:` and `sha256:` references of this configuration that are not on this machine.

        Adapters that only stand in axes of the grid are among it. Raises `ConfigError` for a grid that is none, and
        `ModelError` if the registry cannot be read.
        """
        return [one for one in dict.fromkeys(_needs(config)) if self._lacks(one)]

    def _lacks(self, one: Needed) -> bool:
        key = (one.reference, one.noun)
        if key not in self._is_remote:
            self._is_remote[key] = is_remote(one.reference, one.noun)
        return self._is_remote[key]


def _needs(config: BatchConfig) -> Iterator[Needed]:
    model = config.model
    asked = [(model.source, "model"), (model.vae, "vae"), (config.memory.tiny_vae, "tiny VAE")]
    if model.config and model.config.startswith(SCHEMES):
        asked.append((model.config, _noun_of_config(model)))
    yield from (Needed(text, noun) for text, noun in asked if text and text.startswith(SCHEMES))
    # Most batches name nothing of a hub; a grid of theirs is not gone through for it.
    if any(scheme in f"{config.adapters!r}{config.grid!r}" for scheme in SCHEMES):
        for values in Grid(config.grid).adapter_combinations():
            yield from _adapters(config, values)


def _noun_of_config(model: Model) -> str:
    """What `model.config` is fetched as: a file that leaves out weights of text encoders or VAE needs them from there.

    While the file itself is not here, that is not known.
    """
    from pipeline.weights.inspection import inspect_file
    from pipeline.weights.single_file_inspection import missing_parts

    try:
        path = resolve(model.source)
        facts = inspect_file(path) if path.is_file() else None
    except ModelError:  # not here, or wrong, which others say
        return "model.config"
    if facts is None or facts.kind not in ("checkpoint", "denoiser"):
        return "model.config"
    return "model" if missing_parts(facts, ("vae",) if model.vae else ()) else "model.config"


def _adapters(config: BatchConfig, values: Sequence[tuple[str, object]]) -> Iterator[Needed]:
    try:
        sets, _ = changed(config.adapters.specs, config.init, values)
    except ValueError as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    entries = (
        *(("loras", "lora", place, one.source) for place, one in enumerate(sets.loras)),
        *(("embeddings", "embedding", place, one.source) for place, one in enumerate(sets.embeddings)),
        *(("controlnets", "controlnet", place, one.source) for place, one in enumerate(sets.controlnets)),
        *(("ip_adapters", "ip-adapter", place, one.source) for place, one in enumerate(sets.ip_adapters)),
        *(("ip_adapters", "image encoder", place, one.encoder or "") for place, one in enumerate(sets.ip_adapters)),
    )
    for key, noun, place, reference in entries:
        if str(reference).startswith(SCHEMES):
            yield Needed(str(reference), noun, f"adapters.{key}[{place}]")
