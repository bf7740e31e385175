"""Sampling settings that suit a prompt and a model: card, profile, convention, family, in this order, then quality."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipeline.prompting.analysis import PromptAnalysis, Quality
from pipeline.prompting.conventions import CLOSED, PHRASE_FAMILIES, lineage, read_data
from pipeline.prompting.proposals import Setting
from pipeline.ranges import SIDE, Range
from pipeline.schedulers import fits, scheduler_faults, scheduler_name
from pipeline.weights.families import FAMILIES

Settings = dict[str, Setting]

_KEYS = ("steps", "guidance_scale", "scheduler", "clip_skip")
_PROFILE = (*_KEYS, "width", "height")
_TOGETHER = {"width": ("height",), "height": ("width",), "scheduler_options": ("scheduler",)}
"""What is not chosen where this is set, since the one makes no sense without the other."""


_CARD = {"steps": Range(1, 100, whole=True), "guidance_scale": Range(0, 30), "clip_skip": Range(1, 4, whole=True)}
"""What a card is believed: it is a stranger's text, and a thousand steps would cost a night."""

_SAME_AREA = 0.2
"""So much may the area of a trained size differ from that of the model's own size."""

_RATIO = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)\s*[:x×/]\s*(\d{1,5}(?:\.\d{1,3})?)")
_MOST_UNEQUAL = 4
"""Width to height, or height to width; no model was trained beyond."""


def settings_for(
    analysis: PromptAnalysis,
    *,
    family: str | None,
    convention: str,
    card_settings: Mapping[str, Any],
    profile_sampling: Mapping[str, Any],
    quality: Quality | None = None,
    default_size: tuple[int, int] | None = None,
    distilled: bool = False,
    v_prediction: bool = False,
    set_by_user: Collection[str] = (),
) -> Settings:
    """The settings that suit, each with who says so; a key that nobody says anything of is left out.

    `card_settings` is what the model's author advises (`ModelCard.settings`); what is beyond belief, or does not suit
    the family, is passed over. `profile_sampling` is the model profile's `sampling`, checked; of its other keys nothing
    is said, since they hold whatever else is chosen. `quality` counts before that of the prompt. `default_size` is the
    model's own width and height in pixels, None where that is not known. A distilled model works with what it was
    trained for: there the profile counts before the card, and quality changes nothing. `set_by_user` are the names of
    sampling values that are not open, and nothing is said of them: of no side of a picture where one is set, and of no
    scheduler where options for one are.
    """
    found = {
        key: Setting(profile_sampling[key], "profile") for key in _PROFILE if profile_sampling.get(key) is not None
    }
    card = _believed(card_settings, family)
    usual = _usual(family, convention, distilled, v_prediction)
    if profile_sampling.get("scheduler_options"):  # they are of the profile's scheduler, or of the weights' own
        card.pop("scheduler", None)
        usual = {key: value for key, value in usual.items() if key != "scheduler"}
    found = {**usual, **card, **found} if distilled else {**usual, **found, **card}
    if convention == CLOSED:
        found = _scaled(found, quality)
    else:
        found = found if distilled else _scaled(found, quality or analysis.quality)
        found |= _size(analysis, family, profile_sampling, default_size, distilled)
    settled = {one for key in set_by_user for one in (key, *_TOGETHER.get(key, ()))}
    return {key: value for key, value in found.items() if key not in settled}


@functools.cache
def _usual(family: str | None, convention: str, distilled: bool, v_prediction: bool) -> Settings:
    data = read_data("settings.toml")
    if convention == CLOSED:
        return {}
    if distilled:
        tables = [data["distilled"].get(family, {})]
    else:
        groups = ("v_prediction", "convention") if v_prediction else ("convention",)
        names = lineage(convention) if family in PHRASE_FAMILIES else ()
        tables = [data[group].get(name, {}) for name in names for group in groups]
        tables.append(data["family"].get(family, {}))
    return {
        key: Setting(next(table[key] for table in tables if key in table), "family")
        for key in _KEYS
        if any(key in table for table in tables)
    }


def _believed(said: Mapping[str, Any], family: str | None) -> Settings:
    """What of a card's advice can be used with this family."""
    known = FAMILIES.get(family or "")
    believed = {key: said[key] for key, limits in _CARD.items() if key in said and limits.fault(said[key]) is None}
    if known and isinstance(said.get("scheduler"), str):
        believed["scheduler"] = _scheduler(said["scheduler"], known.flow_matching)
    return {key: Setting(value, "card") for key, value in believed.items() if value is not None}


@functools.lru_cache(maxsize=512)
def _scheduler(said: str, flow_matching: bool) -> str | None:
    """The usual name of a card's sampler; None for one that is not known, does not fit or lacks a package."""
    try:
        name = scheduler_name(said)
    except ValueError:
        return None
    return name if fits(name, flow_matching) and not scheduler_faults(name) else None


def _scaled(found: Settings, quality: Quality | None) -> Settings:
    steps = found.get("steps")
    if quality is None or steps is None or not isinstance(steps.value, int):
        return found
    rule = read_data("settings.toml")["quality"][quality]
    # Never the other way: a draft takes no more steps than usual, high quality no fewer.
    closer: Callable[..., int] = min if rule["factor"] < 1 else max
    value = closer(steps.value, min(max(round(steps.value * rule["factor"]), rule["least"]), rule["most"]))
    return found if value == steps.value else found | {"steps": Setting(value, "rule")}


def _size(
    analysis: PromptAnalysis,
    family: str | None,
    profile_sampling: Mapping[str, Any],
    default_size: tuple[int, int] | None,
    distilled: bool,
) -> Settings:
    """Width and height where the prompt asks for a format; nothing where it does not, or the model has but one size."""
    ratio = _asked_ratio(analysis)
    known = FAMILIES.get(family or "")
    if ratio is None or known is None:
        return {}
    width, height = profile_sampling.get("width"), profile_sampling.get("height")
    own = (width, height) if width and height else default_size
    if own is None:
        if distilled and family in PHRASE_FAMILIES:
            return {}  # it may be of one with 512 or with 1024 pixels, and be good at nothing else
        own = (known.size, known.size)
    if bucket := _nearest_bucket(known.name, ratio, own[0] * own[1]):
        return {"width": Setting(bucket[0], "family"), "height": Setting(bucket[1], "family")}
    if distilled:
        return {}  # trained for its own size alone, as SDXL-Turbo
    width, height = _of_area(ratio, own[0] * own[1], known.size_multiple)
    return {"width": Setting(width, "rule"), "height": Setting(height, "rule")}


def _asked_ratio(analysis: PromptAnalysis) -> float | None:
    """Width to height, by numbers, then by words of format, then by the frame of a person; None if nothing says it."""
    data = read_data("sizes.toml")
    proportions = data["proportions"]
    if analysis.aspect:
        said = " ".join(one.words.casefold() for one in analysis.evidence if one.axis == "aspect")
        if (match := _RATIO.search(said)) and float(match[1]) and float(match[2]):
            return min(max(float(match[1]) / float(match[2]), 1 / _MOST_UNEQUAL), _MOST_UNEQUAL)
        for one in data["formats"]:
            if one["aspect"] == analysis.aspect and any(word in said for word in one["words"]):
                return float(one["proportion"][0] / one["proportion"][1])
    is_person = analysis.subject[:1] == ("person",)
    name: str | None = analysis.aspect
    if is_person and "full_body" in analysis.shot:
        name = name or "tall"
    elif is_person and "portrait" in analysis.shot and name in (None, "tall"):
        name = "face"
    if name is None:
        return None
    width, height = proportions[name]
    return float(width / height)


@functools.lru_cache(maxsize=1_024)
def _nearest_bucket(family: str, ratio: float, area: int) -> tuple[int, int] | None:
    """The trained size of about this area whose proportion is nearest; None if there is none of this area."""
    wide = read_data("sizes.toml")["family"].get(family, {"buckets": ()})["buckets"]
    all_of_them = {size for width, height in wide for size in ((width, height), (height, width))}
    squarest = min((size for size in all_of_them), key=lambda size: abs(size[0] - size[1]), default=None)
    if squarest is None or abs(squarest[0] * squarest[1] / area - 1) > _SAME_AREA:
        return None
    return min(
        all_of_them,
        key=lambda size: (round(abs(math.log(size[0] / size[1] / ratio)), 3), abs(size[0] * size[1] - area), size),
    )


def _of_area(ratio: float, area: int, multiple: int) -> tuple[int, int]:
    """Sides of this proportion and about this area, as multiples of 64 pixels, or of fewer for small pictures."""
    step = max(multiple, min(64, 2 ** int(math.log2(max(math.sqrt(area) / 8, 1)))))
    sides = (math.sqrt(area * ratio), math.sqrt(area / ratio))
    width, height = (min(max(round(side / step), 1) * step, int(SIDE.most) // step * step) for side in sides)
    return max(width, int(SIDE.least)), max(height, int(SIDE.least))
