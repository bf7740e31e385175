"""What the user allows and asks of a choice, beside the prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.prompting.analysis import Quality

if TYPE_CHECKING:
    from pipeline.selection.candidates import ModelCandidate

LicenceWish = Literal["any", "commercial"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """`families` restricts the models' families, where it is not empty; `exclude` are names of models and LoRAs.

    `fits` says why a model cannot be loaded here (`filters.TOO_LARGE`, `filters.INCOMPLETE`), None if it can; it may be
    slow, since only models that might win are asked, each once. `model` is the reference of the model where the user
    has set it: then it is taken, and only LoRAs and VAE are chosen. `set_loras`: whether these are to be chosen, which
    they are not where the user has set them. `tags`: LoRA tags of the prompt are read.
    """

    max_loras: int = 3
    licence: LicenceWish = "any"
    families: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    quality: Quality | None = None
    fits: Callable[[ModelCandidate], str | None] = lambda _model: None
    model: str | None = None
    set_loras: bool = True
    tags: bool = True
