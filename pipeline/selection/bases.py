"""Which LoRAs a model can take: by family, and by the convention of the base that each was made from.

Pony, Illustrious, NoobAI and plain SDXL are one architecture, and a LoRA of the one loads into the other and mostly
disappoints.
"""

from __future__ import annotations

import re

from pipeline.prompting.conventions import lineage
from pipeline.registry.conventions import convention_by
from pipeline.registry.records import ModelCard

TAGGED = ("pony", "booru")
"""The conventions, variants included, whose models were trained on tags."""

_VARIANTS = (
    ("illustrious", re.compile(r"illustrious", re.IGNORECASE)),
    ("noobai", re.compile(r"noob[ _-]?(?:ai|xl)", re.IGNORECASE)),
    ("animagine", re.compile(r"animagine", re.IGNORECASE)),
)
"""Of `booru`, by the base's own name."""


def convention_of(family: str | None, name: str, card: ModelCard) -> str:
    """The convention of a model with this card, one of `pipeline.prompting.conventions`; empty for no known family.

    `name` is that of a checkpoint, which counts where nothing else tells; of a LoRA, which anybody may name, it is "".
    """
    if family is None:
        return ""
    found = convention_by(family, (card.base_model,), card, name)
    if found != "booru":
        return found
    named = next((variant for variant, base in _VARIANTS if base.search(f"{card.base_model} {name}")), None)
    return named or ("noobai" if card.v_prediction else found)


def root_of(convention: str) -> str:
    """The convention of which this is a variant, or itself; empty for none."""
    return next(reversed(lineage(convention)), "")


def fit_of_lora(family: str | None, convention: str, lora_family: str | None, lora_convention: str) -> float | None:
    """How far a LoRA's base is from a model's: 0 the same, 1 another of its family; None if it must not be applied."""
    if lora_family is None or family != lora_family:
        return None
    if (root_of(convention) == "pony") != (root_of(lora_convention) == "pony"):
        return None
    return 0.0 if convention in lineage(lora_convention) or lora_convention in lineage(convention) else 1.0
