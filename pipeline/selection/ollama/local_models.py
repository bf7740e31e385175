"""Which model of a server is asked: the named one, else a small one that runs there and answers at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import OllamaUnavailable
from pipeline.storage.foreign_names import plain

if TYPE_CHECKING:
    from pipeline.selection.ollama.client import OllamaClient

PREFERRED = ("gemma3:4b", "qwen2.5:3b", "qwen3:4b-instruct", "llama3.2:3b", "phi4-mini", "gemma3n:e4b")
"""Small models that secondary reports found good at answers bound to a schema, the best first."""

LEAST_PARAMETERS, MOST_PARAMETERS = 1e9, 9e9
"""Of a model that nobody named: smaller ones answer in the right form, but not of the prompt (SmolLM2 with 135 million,
measured); larger ones take their time.
"""

_SIZES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_MOST_MODELS = 1_000


@dataclass(frozen=True, slots=True)
class LlmModel:
    """A model of a server. `digest` (64 hex digits) identifies its weights and settings; empty if it was not told.

    `runs_elsewhere` names the reason to think so. `capabilities` is None where the server does not say.
    """

    name: str
    digest: str
    parameters: float | None
    capabilities: frozenset[str] | None
    runs_elsewhere: str | None


def choose_model(client: OllamaClient, wanted: str | None, allow_remote: bool) -> LlmModel:
    """The model to ask. Raises `OllamaUnavailable` if it is missing, or runs elsewhere without permission."""
    models = [one for entry in client.models()[:_MOST_MODELS] if (one := _model(entry)) is not None]
    if wanted is None:
        return _best(client, models)
    named = next((one for one in models if _same(one.name, wanted)), None)
    if named is None:
        there = ", ".join(sorted(one.name for one in models)[:5]) or "none"
        raise OllamaUnavailable(
            f"Ollama has no model {plain(wanted)!r} (it has: {there}); ollama pull {plain(wanted)}",
            f"Ollama has no model {plain(wanted)!r}",
        )
    asked = _looked_into(client, named)
    if asked.runs_elsewhere and not allow_remote:
        raise OllamaUnavailable(
            f"{asked.name} does not run on the server that was named ({asked.runs_elsewhere}), so prompts would leave "
            "it; name a local model, or set selection.ollama.allow_remote=true",
            f"{asked.name} does not run on the server that was named",
        )
    return asked


def _best(client: OllamaClient, models: Sequence[LlmModel]) -> LlmModel:
    local = [one for one in models if not one.runs_elsewhere]
    liked = [one for wanted in PREFERRED for one in local if _is_kind_of(one.name, wanted)]
    small = [one for one in local if one.parameters and LEAST_PARAMETERS <= one.parameters <= MOST_PARAMETERS]
    others = sorted(small, key=lambda one: (-(one.parameters or 0), one.name))
    for one in (*liked, *others):
        asked = _looked_into(client, one)
        can = asked.capabilities or frozenset({"completion"})
        if not asked.runs_elsewhere and "completion" in can and (one in liked or "thinking" not in can):
            return asked
    raise OllamaUnavailable(
        f"Ollama has no small local model that answers at once; ollama pull {PREFERRED[0]}, or name one: "
        "selection.ollama.model=NAME",
        "Ollama has no small local model",
    )


def _looked_into(client: OllamaClient, model: LlmModel) -> LlmModel:
    """The same with what only the model's own page tells, of older servers all of it."""
    page = client.describe(model.name)
    capabilities = _capabilities(page)
    return replace(
        model,
        capabilities=model.capabilities if capabilities is None else capabilities,
        runs_elsewhere=model.runs_elsewhere or _elsewhere(model.name, page),
    )


def _model(entry: Mapping[str, Any]) -> LlmModel | None:
    name = entry.get("model") or entry.get("name")
    if not isinstance(name, str) or not name or plain(name) != name:
        return None
    digest = str(entry.get("digest")).removeprefix("sha256:")
    details = entry.get("details")
    size = details.get("parameter_size") if isinstance(details, Mapping) else None
    return LlmModel(
        name,
        digest if re.fullmatch(r"[0-9a-f]{64}", digest) else "",
        _parameters(size),
        _capabilities(entry),
        _elsewhere(name, entry),
    )


def _capabilities(told: Mapping[str, Any]) -> frozenset[str] | None:
    listed = told.get("capabilities")
    return frozenset(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else None


def _elsewhere(name: str, told: Mapping[str, Any]) -> str | None:
    if told.get("remote_host") or told.get("remote_model"):
        return f"it runs at {plain(told.get('remote_host'), 80) or 'another address'}"
    tag = name.rpartition(":")[2] if ":" in name else ""
    return "its tag says cloud" if re.search(r"(?:^|-)cloud$", tag, re.IGNORECASE) else None


def _parameters(text: object) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMBT])", plain(text).upper())
    return float(match[1]) * _SIZES[match[2]] if match else None


def _is_kind_of(name: str, wanted: str) -> bool:
    """Whether a name is the wanted one, or that of a quantisation of it, as in `gemma3:4b-it-qat`."""
    return _same(name, wanted) or name.casefold().startswith(f"{_full(wanted).removesuffix(':latest')}-")


def _same(name: str, wanted: str) -> bool:
    """Names without a tag mean `latest`; the server does not mind large letters."""
    return _full(name) == _full(wanted)


def _full(name: str) -> str:
    lower = name.casefold()
    return lower if ":" in lower.rpartition("/")[2] else f"{lower}:latest"
