"""How long pictures took in batches of each size, kept from run to run, and the best batch size for the next run.

The worker measures what it makes anyway. The plan takes the size that was fastest, and may let a few pictures try a
neighbouring one. No torch is needed for either.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median_low

from pipeline.errors import ConfigError
from pipeline.memory.planning.history import kinds
from pipeline.memory.planning.techniques import ordered
from pipeline.request import Adapters, DeviceKind, ImageRequest, Likeness, MemorySettings, ModelSettings, SpeedSettings
from pipeline.schedulers import SAMPLERS
from pipeline.storage.sqlite_files import CacheFile
from pipeline.system.device import find_device
from pipeline.system.units import GIB

GAIN = 0.03
"""Share of a picture's time that a batch size must save to be worth its memory, and the wait for the first picture."""

COUNTED = 2
"""Measurements from which on a size counts as measured, since one may have been disturbed."""

KEPT = 5
"""Last measurements of a size that are kept: drivers, libraries and temperatures change."""

KEPT_IN_ALL = 20_000
"""Measurements in the file, about 3 MB."""

TRIAL_BATCHES = COUNTED + 1
"""Batches of a size that is to be measured: the first of its kind warms up and does not count."""

_WITHOUT_EFFECT = ("half_precision", "staged", "drop_encoders", "vae_slicing", "encoder_")
"""Techniques, by the beginning of their names, that change nothing of a batch's time but what its size says already,
or stand beside them as the dtype."""


@dataclass(frozen=True, slots=True)
class TimingKind:
    """Everything except the batch size that decides how long denoising and decoding take.

    `adapters` says which kinds are on, see `pipeline.memory.planning.history.kinds`. `budget_gib` is set where it
    decides how much has to be streamed. `device` is its name.
    """

    model_sha256: str
    vae_sha256: str | None
    dtype: str
    techniques: tuple[str, ...]
    budget_gib: int | None
    width: int
    height: int
    guided: bool
    step_cache: str | None
    adapters: str
    attention: str
    channels_last: bool
    device: str
    compiled: bool

    def key(self) -> str:
        """The kind as a hash, for the file: what a user makes should not be readable from it."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


def kind_of(
    model: ModelSettings,
    held: MemorySettings,
    picture: Likeness | ImageRequest,
    adapters: Adapters,
    speed: SpeedSettings,
    device: str,
    *,
    compiled: bool,
) -> TimingKind:
    """The kind of a picture; the same for a plan's likeness and for the request made from it."""
    streamed = held.budget_bytes is not None and held.uses("resident_blocks")
    return TimingKind(
        model_sha256=model.sha256,
        vae_sha256=model.vae_sha256,
        dtype=held.dtype,
        techniques=ordered(name for name in held.techniques if not name.startswith(_WITHOUT_EFFECT)),
        budget_gib=(held.budget_bytes or 0) // GIB if streamed else None,
        width=picture.width,
        height=picture.height,
        guided=picture.guidance_scale > 1,
        step_cache=picture.step_cache,
        adapters=kinds(adapters),
        attention=speed.attention,
        channels_last=speed.channels_last,
        device=device,
        compiled=compiled,
    )


def passes(picture: Likeness | ImageRequest, adapters: Adapters) -> int:
    """How often the denoiser is called for a picture: second-order schedulers call it twice per step."""
    sampler = SAMPLERS.get(picture.scheduler)
    class_name = sampler.class_name if sampler else picture.scheduler
    share = adapters.init.strength if adapters.init else 1.0
    return max(1, int(picture.steps * share)) * (2 if "Heun" in class_name or "KDPM2" in class_name else 1)


@functools.cache
def device_name(kind: DeviceKind) -> str:
    """The name of a device of this kind on this machine, the same in the plan and in the worker."""
    try:
        return find_device(kind).name or kind
    except ConfigError:
        return kind


class Timings:
    """Measured times. In the user's cache folder; if that cannot be used, there are none."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = CacheFile(path, "paces (kind TEXT, batch INTEGER, denoise REAL, decode REAL)")
        self._unsaved: list[tuple[str, int, float, float]] = []

    def seconds(self, kind: TimingKind, passes: int) -> dict[int, float]:
        """Seconds per picture with this many passes, by batch size, for all sizes that were measured often enough."""
        query = "SELECT batch, denoise, decode FROM paces WHERE kind = ? ORDER BY rowid DESC"
        found: dict[int, list[float]] = {}
        for batch, denoise, decode in self._file.rows(query, (kind.key(),)):
            if isinstance(batch, int) and batch > 0 and _is_time(denoise) and _is_time(decode):
                found.setdefault(batch, []).append(passes * denoise + decode)
        # Of an even number the lower: what disturbs a measurement makes it longer.
        return {batch: median_low(one[:KEPT]) for batch, one in sorted(found.items()) if len(one) >= COUNTED}

    def note(self, kind: TimingKind, passes: int, batch: int, denoise_s: float, decode_s: float) -> None:
        """Record the total seconds of a batch; stored by `save`."""
        if _is_time(denoise_s) and _is_time(decode_s):
            self._unsaved.append((kind.key(), batch, denoise_s / batch / passes, decode_s / batch))

    def save(self) -> None:
        """Store what was recorded since the last call, and delete what is too old."""
        if not self._unsaved:
            return
        forget = (
            "DELETE FROM paces WHERE kind = ?1 AND batch = ?2 AND rowid NOT IN "
            "(SELECT rowid FROM paces WHERE kind = ?1 AND batch = ?2 ORDER BY rowid DESC LIMIT ?3)"
        )
        self._file.change(
            ("CREATE INDEX IF NOT EXISTS paces_kind ON paces (kind, batch)", ()),
            *(("INSERT INTO paces VALUES (?, ?, ?, ?)", row) for row in self._unsaved),
            *((forget, (*size, KEPT)) for size in sorted({row[:2] for row in self._unsaved})),
            ("DELETE FROM paces WHERE rowid <= (SELECT max(rowid) FROM paces) - ?", (KEPT_IN_ALL,)),
        )
        self._unsaved.clear()


def comparable(seconds: Mapping[int, float], usual: int, largest: int) -> dict[int, float]:
    """The measured sizes that a plan may use: powers of two, and the usual size.

    Any number of pictures can be left for a batch at the end. Of many measured sizes the fastest is so by luck.
    """
    return {batch: one for batch, one in seconds.items() if batch <= largest and (batch in {usual, _power(batch)})}


def preferred(seconds: Mapping[int, float], usual: int) -> int:
    """The smallest of the measured sizes that no other beats by more than `GAIN`; `usual` until that is measured.

    `seconds` per picture by batch size, see `comparable`.
    """
    if usual not in seconds:
        return usual
    least = min(seconds.values())
    return min(batch for batch, one in seconds.items() if one * (1 - GAIN) <= least)


def untried(seconds: Mapping[int, float], usual: int, present: int, largest: int) -> int | None:
    """The neighbouring batch size to measure next; None if both are measured or not possible.

    The smaller one first: it surely fits. Where other sizes were measured but not the usual one, that one waits for its
    turn, or memory does not allow it, and a larger one would fare no better.
    """
    if seconds and usual not in seconds:
        return None
    neighbours = (_power(present - 1), 2 * _power(present))
    return next((one for one in neighbours if 1 <= one <= largest and one not in seconds), None)


def described(seconds: Iterable[tuple[int, float]], batch: int, steps: int) -> str:
    """A short text: how a size compares with the other measured ones."""
    known = dict(seconds)
    if batch not in known:
        return "not measured"
    others = "".join(f"; {one}: {_figure(known[one])}" for one in known if one != batch)
    return f"measured: {_figure(known[batch])} s per image of {steps} steps{others}"


def _power(number: int) -> int:
    """The largest power of two up to a number; 0 below 1."""
    return 1 << number.bit_length() - 1 if number > 0 else 0


def _is_time(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value >= 0


def _figure(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 1000 else f"{seconds:.0f}"
