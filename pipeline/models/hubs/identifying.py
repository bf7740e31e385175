"""Which model a file is: by its hash here, and, only if that is wanted, on CivitAI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.hubs.cards import Card, card_by_hash
from pipeline.models.hubs.results import Outcome
from pipeline.models.hubs.transport import Transport
from pipeline.models.identity import file_hash, tensor_hash
from pipeline.models.references import Reference
from pipeline.models.registry.database import Registry
from pipeline.models.registry.queries import files_by_tensors, find
from pipeline.models.registry.records import StoredModel


@dataclass(frozen=True, slots=True)
class Identity:
    """A file by its hashes, and who knows it. `tensor_hash` is None for what is not safetensors.

    `known` is the model on this machine with the same content, or with the same weights under other remarks. `hub` is
    what CivitAI says, None if it was not asked.
    """

    path: Path
    sha256: str
    tensor_hash: str | None
    known: StoredModel | None
    hub: Outcome[Card] | None


def identify(path: Path, registry: Registry, transport: Transport | None = None) -> Identity:
    """Identify a file of weights. Only with a `transport`, and only if nothing here knows it, CivitAI is told the hash.

    Raises `ModelError` for what is not there, and `RegistryError`.
    """
    file = path.expanduser()
    try:
        sha256 = file_hash(file)
        tensors = tensor_hash(file) if file.suffix.lower() == ".safetensors" else None
    except OSError as error:
        raise ModelError(f"identify {path}: cannot be read ({error.strerror or error})") from None
    known = find(registry, Reference(f"sha256:{sha256}", "sha256", sha256=sha256))
    if not known and tensors:
        alike = files_by_tensors(registry, tensors)
        known = [model for one in alike for model in find(registry, Reference(str(one.path), "path"))]
    asked = card_by_hash(transport, sha256) if transport and not known else None
    return Identity(file, sha256, tensors, known[0] if known else None, asked)
