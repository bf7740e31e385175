"""The second stage of understanding: a prompt is compared with sentences that say what pictures are like.

It fills axes that the rules left open, where one value is clearly nearest. Encoders do not understand negation ("a
photo without people" lies next to "a portrait of a person"), so what a prompt excludes is cut out before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.conventions import read_data
from pipeline.prompting.encoder import vectors
from pipeline.prompting.filling import affirmed, filled, open_axes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class _Axis:
    """The values of an axis, which of them are general, which each sentence is of, the sentences' vectors, and how near
    a prompt must be.
    """

    values: tuple[str, ...]
    general: NDArray[np.bool_]
    owners: NDArray[np.intp]
    sentences: NDArray[np.float32]
    least: float
    margin: float


def fill_by_meaning(prompts: Sequence[str], analyses: Sequence[PromptAnalysis]) -> list[PromptAnalysis]:
    """The analyses with what can be told of open axes, in the same order.

    Loads the encoder, which takes a second, only if there is something to fill. It must be installed.
    """
    results = list(analyses)
    described = _described().keys()
    gaps = [place for place, one in enumerate(analyses) if not described.isdisjoint(open_axes(one))]
    texts = {place: text for place in gaps if (text := affirmed(prompts[place], analyses[place]))}
    if texts:
        encoded = vectors(texts.values())
        for axis, told in _nearest(encoded).items():
            for place, value in zip(texts, told, strict=True):
                if value is not None:
                    results[place] = filled(results[place], {axis: (value,)}, "meaning", prompts[place])
    return results


def _nearest(encoded: NDArray[np.float32]) -> dict[str, list[str | None]]:
    """By axis, for each prompt the value that is clearly nearest."""
    import numpy as np

    found: dict[str, list[str | None]] = {}
    for name, axis in _axes().items():
        by_sentence = encoded @ axis.sentences.T
        by_value = np.stack([by_sentence[:, axis.owners == n].max(axis=1) for n in range(len(axis.values))], axis=1)
        rounded = by_value.round(3)
        best, rows = rounded.argmax(axis=1), np.arange(len(rounded))
        rivals = rounded.copy()
        rivals[rows, best] = -1
        rivals[np.ix_(~axis.general[best], axis.general)] = -1
        first, second = rounded[rows, best], rivals.max(axis=1)
        clear = (first >= axis.least - 1e-6) & (first - second >= axis.margin - 1e-6)  # float32 of three digits
        found[name] = [axis.values[n] if is_clear else None for n, is_clear in zip(best, clear, strict=True)]
    return found


def _described() -> dict[str, dict[str, list[str]]]:
    """The sentences by axis and value."""
    told = read_data("meanings.toml")
    return {axis: told[axis] for axis in told["least"]}


@cache
def _axes() -> dict[str, _Axis]:
    import numpy as np

    told, axes = read_data("meanings.toml"), {}
    for name, sentences in _described().items():
        owners = [place for place, said in enumerate(sentences.values()) for _ in said]
        encoded = vectors(sentence for said in sentences.values() for sentence in said)
        general = np.array([value in told["general"].get(name, ()) for value in sentences])
        axes[name] = _Axis(tuple(sentences), general, np.array(owners), encoded, told["least"][name], told["margin"])
    return axes
