"""The `selection:` section of a batch configuration: how models, LoRAs and settings are chosen where they are open."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel

from pipeline.prompting.analysis import Quality
from pipeline.ranges import STRICT, ChosenLoras, Range, Text, one_of
from pipeline.selection.ollama.settings import TIMEOUT_S
from pipeline.selection.wishes import LicenceWish
from pipeline.weights.families import FAMILIES

CHOSEN = "auto"
"""The source of a model that is chosen for each prompt."""

_FAMILY = Annotated[str, one_of(FAMILIES)]


class Ollama(BaseModel):
    """A language model that fills what rules leave open: `pipeline.selection.ollama.settings` says it."""

    model_config = STRICT

    host: Text | None = None
    model: Text | None = None
    timeout_s: Annotated[float, Range(1, 3600).limits] = TIMEOUT_S
    allow_remote: bool = False


class Selection(BaseModel):
    """How choices are made. What a user sets anywhere else is never chosen.

    `refresh` chooses anew where an earlier image of the same prompt has a choice; `accept` answers for a user who would
    be asked (`mode: assisted`). Neither those two nor `mode` decide which choice is made.
    """

    model_config = STRICT

    mode: Literal["auto", "assisted", "manual"] = "auto"
    analysis: Literal["auto", "rules", "meaning", "ollama"] = "auto"
    max_loras: ChosenLoras = 3
    licence: LicenceWish = "any"
    families: list[_FAMILY] = []
    exclude: list[Text] = []
    quality: Quality | None = None
    learn: bool = True
    refresh: bool = False
    accept: bool = False
    ollama: Ollama = Ollama()
