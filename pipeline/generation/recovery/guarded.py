"""Runs work that may fail on a model: the failure is returned as a value, and the model is made usable again.

Loading falls back here as well, technique by technique, while memory runs out over it.
"""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from pipeline.errors import (
    DarkroomError,
    Interrupted,
    JobFailure,
    ModelError,
    OutOfHostMemory,
    OutOfMemory,
    RunStopped,
    WeightsChanged,
)
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.generation.recovery.next_fallback import Where, next_fallback
from pipeline.loading.load import load
from pipeline.memory.device.apply import apply_memory, recover
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.planning.history import FallbackHistory, Situation, Worked
from pipeline.registry.model_settings import weight_files
from pipeline.request import ImageRequest, MemorySettings, ModelSettings, SpeedSettings
from pipeline.system.device import host_memory
from pipeline.system.failures import classify
from pipeline.system.units import size_text

T = TypeVar("T")

_log = logging.getLogger("darkroom.generation")


@functools.cache
def history() -> FallbackHistory:
    """The history of fallbacks that worked, opened once per process."""
    return FallbackHistory()


def attempted(model: LoadedModel, work: Callable[[], T]) -> T | JobFailure:
    """The result of `work`, or the failure that it ended in, after which the model is usable again.

    Where memory ran out that components of other models take while they wait, those go, and it is tried once more; and
    so where blocks fill the device on purpose, whose pieces are whole again after a failure. Raises `Interrupted` and
    `RunStopped`, of which `DeviceLost` says that only a new process can go on.
    """
    outcome = _attempted_once(model, work)
    if isinstance(outcome, OutOfMemory) and (
        idle_dropped(model.pool, outcome, model.device.type) or model.memory.uses("resident_blocks")
    ):
        return _attempted_once(model, work)
    return outcome


def idle_dropped(pool: Pool, failure: OutOfMemory, device_kind: str) -> bool:
    """Free unused components from the memory that ran out; whether there were any. Costs a second load, and no picture.

    They are forgotten then. On a card of its own memory, those that wait on the host are in nobody's way.
    """
    of_card = device_kind == "cuda" and not isinstance(failure, OutOfHostMemory)
    dropped = pool.clear(on_device=of_card)
    if dropped:
        why = _cause(failure)
        _log.info("out of memory (%s): components of other models are dropped, and the same is tried again", why)
    return dropped > 0


def could_apply(model: LoadedModel, memory: MemorySettings) -> bool:
    """Whether memory was enough to apply other techniques to a loaded model, if need be without unused components.

    Where it did not, the model is to be released: loading it again falls back. Raises `ModelError`.
    """
    while True:
        try:
            apply_memory(model, memory)
        except OutOfMemory as error:
            failure = type(error)(*error.args)  # without its traceback, which would keep tensors
        else:
            return True
        if not idle_dropped(model.pool, failure, model.device.type):
            return False


def load_with_fallbacks(
    settings: ModelSettings,
    asked: MemorySettings,
    held: MemorySettings,
    device: str,
    cpu_threads: int | None,
    pool: Pool,
    speed: SpeedSettings,
    known_failures: KnownFailures | None = None,
) -> LoadedModel:
    """Call `load`, with more memory techniques than planned while memory runs out, as far as `asked` allows.

    Raises `ModelError`, and `OutOfMemory` with the numbers when no fallback is left; at once for a model of which
    `known_failures` say so from earlier in the run.
    """
    situation = Situation("load", settings.sha256, held, device_bytes(device))
    known_failures = known_failures or KnownFailures()
    hopeless = known_failures.why_not((situation, asked))
    if hopeless is not None:
        raise hopeless
    known = history().recall(situation)
    failure: OutOfMemory | None = None
    latest: OutOfMemory | None = None
    memory = before = held if known is None else replace(held, techniques=known.techniques)
    if known is not None:
        _log.info("loading %s: with %s, which worked before", settings.name, _text(known.techniques))
    what, impossible = "", set[str]()
    while True:
        try:
            model = load(settings, memory, device, cpu_threads, pool=pool, speed=speed)
        except OutOfMemory as error:
            latest = type(error)(*error.args)  # without its traceback, which would keep tensors
            failure = failure or latest
        except WeightsChanged:
            raise  # however it is held
        except ModelError:
            latest = None
            if what:
                impossible.add(what)
                memory = before
            elif memory != held:  # it is not to be had any more as it worked before
                history().forget(situation)
                memory = before = held
                continue
            else:
                raise
        else:
            if failure is not None and memory != held:
                history().remember(situation, Worked(memory.techniques))
                _log.info("loading %s: recorded for later runs that %s worked", settings.name, _text(memory.techniques))
            known_failures.came_out((situation, asked))
            return model
        if latest is not None:
            gc.collect()  # what was half loaded may be cycles
            if idle_dropped(pool, latest, device):
                continue
        step = next_fallback(asked, memory, "load", 1, impossible, device_kind=device)
        if step is None:
            assert failure is not None  # it is only given up after memory has run out
            size = sum(file.stat().st_size for file in weight_files(settings))
            failure = _nothing_left(failure, f"load, {size_text(size)} of weights", asked, memory)
            known_failures.give_up((situation, asked), failure)
            _log.info("loading %s is not tried again in this run: %s", settings.name, failure)
            raise failure
        tell_fallback(f"loading {settings.name}", latest or failure, memory.techniques, step.memory.techniques)
        memory, before, what = step.memory, memory, step.what


def exhausted(model: LoadedModel, failure: OutOfMemory, stage: Where, requests: Sequence[ImageRequest]) -> OutOfMemory:
    """The out-of-memory failure of a stage with its figures, when no fallback is left."""
    first = requests[0]
    peaks = model.stage_peaks.get(stage, {})
    peak = peaks.get("allocated", peaks.get("rss"))
    reached = f"{stage} at {size_text(peak)}" if peak else stage
    what = f"{reached}, {len(requests)} of {first.width} x {first.height}"
    return _nothing_left(failure, what, first.memory, model.memory)


def tell_fallback(
    doing: str, failure: JobFailure | None, before: Sequence[str], after: Sequence[str], what: str = ""
) -> None:
    """Log that memory ran out in some work, and the fallback: `what`, else the techniques that are new."""
    new, gone = (", ".join(sorted({*one} - {*other})) for one, other in ((after, before), (before, after)))
    instead = f" in place of {gone}" if gone else ""
    what = what or f"{new or 'other techniques'}{instead}"
    why = _cause(failure) if failure else "it could not be loaded so"
    _log.warning("out of memory while %s: falls back to %s (%s)", doing, what, why)


@functools.cache
def device_bytes(device: str) -> int:
    """The total memory of a device, by its name in torch, as it was when it was first asked for."""
    import torch

    if torch.device(device).type != "cuda":
        return host_memory()[0]
    return int(torch.cuda.get_device_properties(device).total_memory)


def _attempted_once(model: LoadedModel, work: Callable[[], T]) -> T | JobFailure:
    try:
        return work()
    except (Interrupted, RunStopped):
        recover(model)
        raise
    except JobFailure as error:
        failure = type(error)(*error.args)  # without what it was raised from, which would keep tensors
    except DarkroomError as error:
        failure = JobFailure(str(error))
    except Exception as error:
        failure = classify(error)
    # Outside the except block: a traceback that is still alive would keep the tensors that took the memory.
    recover(model)
    return failure


def _cause(failure: JobFailure) -> str:
    """What the library said, without what a user might do."""
    return str(failure).split("; try ")[0].removeprefix("out of memory: ")


def _text(techniques: Sequence[str]) -> str:
    return ", ".join(techniques) or "no technique"


def _nothing_left(failure: OutOfMemory, what: str, asked: MemorySettings, held: MemorySettings) -> OutOfMemory:
    more = "allow lossy techniques (memory.quality) or those switched off, " if asked.exact or asked.off else ""
    return OutOfMemory(
        f"{str(failure).split('; try ')[0]} ({what}, with {_text(held.techniques)}); no fallback is left: "
        f"{more}take a smaller size or another model"
    )
