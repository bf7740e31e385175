"""Which model a file is: by its hash here, and, only if that is wanted, on CivitAI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.hubs.cards import Card, card_by_hash
from pipeline.hubs.results import Outcome
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.known_hashes import Identified, identify_file
from pipeline.registry.records import StoredModel


@dataclass(frozen=True, slots=True)
class Identity:
    """A file by its hashes, and who knows it: `here` the models on this machine, `hub` what CivitAI says.

    `hub` is None if CivitAI was not asked.
    """

    path: Path
    here: Identified
    hub: Outcome[Card] | None

    @property
    def known(self) -> StoredModel | None:
        """The model on this machine with the same content, else with the same weights under other remarks."""
        return next(iter((*self.here.same, *self.here.same_tensors)), None)


def identify(path: Path, registry: Registry, transport: Transport | None = None) -> Identity:
    """Identify a file of weights. Only with a `transport`, and only if nothing here knows it, CivitAI is told the hash.

    Raises `ModelError` for what is no file or cannot be read, and `RegistryError`.
    """
    file = path.expanduser()
    found = Identity(file, identify_file(registry, file), None)
    if transport is None or found.known:
        return found
    return Identity(file, found.here, card_by_hash(transport, found.here.sha256))
