"""Searches the hubs, one after the other, for the only model with a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ModelError, Unreachable
from pipeline.hubs.hub_search import HUBS, ask_hub
from pipeline.hubs.remote_models import LABELS, SearchHit
from pipeline.hubs.results import PASSING, Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.lookup import listed
from pipeline.registry.records import StoredKind
from pipeline.registry.storing import key_of
from pipeline.weights.references import Reference, parse

NOUNS: dict[StoredKind | None, str] = {
    None: "model", "checkpoint": "model", "lora": "lora", "vae": "vae", "controlnet": "controlnet",
    "embedding": "embedding", "ip_adapter": "ip-adapter",
}  # fmt: skip
"""How messages call what is looked for, by its kind; as `references.resolve` takes it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One place that was searched, and its answer. `is_passing`: the answer may be different the next time."""

    where: str
    said: str
    is_passing: bool = False


def attempt(where: str, named: str, said: str, *, is_passing: bool) -> Attempt:
    """A hub's answer without the parts that its line has anyway: the hub's name, and the request."""
    said = said.removeprefix(f"{named}: ").removeprefix(f"{where}: ").replace(f": {where}: ", ": ", 1)
    return Attempt(where, said, is_passing)


def nowhere(named: str, noun: str, tried: list[Attempt]) -> ModelError:
    """The error if no place has the model, with all attempts; `Unreachable` if the next time may be different."""
    said = "; ".join(f"{one.where}: {one.said}" for one in tried)
    asked = tried[1:]  # the first is this machine
    kind = Unreachable if asked and all(one.is_passing for one in asked) else ModelError
    return kind(f"{noun} {named!r}: cannot be downloaded. {said}")


def offers(
    parsed: Reference, transport: Transport, kind: StoredKind | None, tried: list[Attempt]
) -> Iterator[tuple[str, Reference]]:
    """The places that have a model, the preferred first; the answers of the others are added to `tried`.

    Each hub is asked only when those before it did not give the model.
    """
    if parsed.scheme == "hf":
        yield LABELS["huggingface"], parsed
    elif parsed.scheme in ("civitai", "sha256"):
        yield LABELS["civitai"], parsed
    elif "/" in parsed.text:
        yield LABELS["huggingface"], parse(f"hf:{parsed.text}")
    else:
        for label, ask in HUBS:
            said = ask_hub(ask, transport, parsed.text, kind)
            if not isinstance(said, Ok):
                tried.append(attempt(label, parsed.text, said.say(), is_passing=said.kind in PASSING))
            elif hit := _called(parsed.text, label, said.value, kind, tried):
                yield label, parse(hit.reference)


def _called(
    name: str, label: str, hits: list[SearchHit], kind: StoredKind | None, tried: list[Attempt]
) -> SearchHit | None:
    """The only find that is called so and can be had. Raises `ModelError` where there are several."""
    exact = [hit for hit in hits if key_of(name) in (key_of(hit.name), key_of(hit.short or hit.name))]
    exact = [hit for hit in exact if kind is None or hit.kind in (None, kind)]
    free = [hit for hit in exact if hit.obstacle is None]
    if len(free) > 1:
        which = listed([hit.reference for hit in free])
        raise ModelError(f"{NOUNS[kind]} {name!r}: names {len(free)} models on {label}; say which: {which}")
    if free:
        return free[0]
    obstacle = next((hit.obstacle for hit in exact if hit.obstacle), None)
    if obstacle:
        tried.append(Attempt(label, obstacle.say()))
    else:
        alike = f"; like it are {listed([hit.reference for hit in hits])}" if hits else ""
        tried.append(Attempt(label, f"no model has this name{alike}"))
    return None
