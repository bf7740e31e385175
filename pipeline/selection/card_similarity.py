"""How near the meaning of prompts is to the cards of models and LoRAs, by the sentence encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.encoder import card_vectors, similarities, vectors
from pipeline.prompting.filling import affirmed
from pipeline.selection.candidates import Offers
from pipeline.selection.scoring import LEAST_SIMILARITY

_LONGEST = 400
"""Characters of a description that are read."""


def card_similarities(
    prompts: Sequence[str], analyses: Mapping[str, PromptAnalysis], offers: Offers
) -> dict[str, dict[str, float]]:
    """For each prompt its similarity to the cards of models and LoRAs, by reference. The encoder must be installed."""
    known = {one.reference: one.card for one in offers.models}
    known |= {one.reference: one.card for one in offers.loras}
    said = {
        reference: ". ".join(filter(None, (card.title, card.description[:_LONGEST])))
        for reference, card in known.items()
    }
    described = [(reference, text) for reference, text in said.items() if text]
    if not described:
        return {}
    cards = card_vectors([text for _, text in described])
    near = similarities(vectors([affirmed(prompt, analyses[prompt]) for prompt in prompts]), cards, LEAST_SIMILARITY)
    return {
        prompt: {described[place][0]: share for place, share in found.items()}
        for prompt, found in zip(prompts, near, strict=True)
    }
