"""Short ways to make candidates, and to choose among them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.prompting.rules import analyse
from pipeline.registry.records import ModelCard
from pipeline.selection.bases import convention_of
from pipeline.selection.candidates import LoraCandidate, ModelCandidate, Offers, VaeCandidate, offers
from pipeline.selection.choice import Choice
from pipeline.selection.choose import choose
from pipeline.selection.wishes import Wishes


def model(name: str, card: ModelCard | None = None, family: str | None = "sdxl", **values: Any) -> ModelCandidate:
    """A model that is complete and of 7 GB."""
    card = card or ModelCard()
    given = {"reference": f"/models/{name}", "bytes": 7 * 10**9, "convention": convention_of(family, name, card)}
    return ModelCandidate(name=name, family=family, card=card, **(given | values))


def lora(name: str, card: ModelCard | None = None, family: str | None = "sdxl", **values: Any) -> LoraCandidate:
    """A LoRA."""
    card = card or ModelCard()
    given = {"reference": f"/loras/{name}", "convention": convention_of(family, "", card)}
    return LoraCandidate(name=name, family=family, card=card, **(given | values))


def offered(
    models: Iterable[ModelCandidate], loras: Iterable[LoraCandidate] = (), vaes: Iterable[VaeCandidate] = ()
) -> Offers:
    """These as what can be chosen."""
    return offers(models, loras, vaes, read=analyse)


def chosen(prompt: str, these: Offers, wishes: Wishes | None = None, **told: Any) -> Choice:
    """The choice for a prompt."""
    return choose(prompt, analyse(prompt), these, wishes or Wishes(), **told)


GENERAL = ModelCard(description="Photographs, paintings, anime and 3D renders.", tags=("base model",))
PHOTO = ModelCard(description="A realistic model for photos.", tags=("photography", "photorealistic"))
ANIME = ModelCard(description="For anime pictures.", tags=("anime",))
OIL = ModelCard(description="Oil paintings.", tags=("oil painting",))
