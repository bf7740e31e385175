"""Fetches missing models and adapters of a batch before the first job, and says beforehand what that will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.config.hub_access import open_transport
from jobs.planning.missing_weights import Needed
from jobs.terminal import aligned
from pipeline.errors import ConfigError, DownloadError, RunStopped
from pipeline.system.units import duration_text, size_text

if TYPE_CHECKING:
    from jobs.config.batch_config import BatchConfig
    from pipeline.hubs.fetch_model import DownloadPlan
    from pipeline.hubs.transport import Transport

_log = logging.getLogger("darkroom.hubs")

_GOES_ON = "the downloaded part is kept, and the same command resumes"


@dataclass(frozen=True, slots=True)
class DownloadItem:
    """One missing reference: what would be fetched for it, or why it cannot be; neither if no hub was asked."""

    needed: Needed
    plan: DownloadPlan | None = None
    problem: str | None = None
    is_passing: bool = False


@dataclass(frozen=True, slots=True)
class Downloads:
    """The missing references. With `asked` the hubs have been asked for sizes; nothing was fetched for that.

    `bytes` are those still to come, what several references share once; `speed` is in bytes per second, and
    `is_measured` whether it is that of the last download on this machine.
    """

    items: tuple[DownloadItem, ...]
    asked: bool = False
    bytes: int = 0
    free_bytes: int = 0
    speed: float = 1.0
    is_measured: bool = False

    @property
    def fits(self) -> bool:
        """Whether the store's disk has room for all now."""
        return self.bytes <= self.free_bytes


def not_asked(needs: Sequence[Needed]) -> Downloads:
    """The missing references, as far as known without asking a hub."""
    return Downloads(tuple(map(DownloadItem, _each_once(needs))))


def look_up(needs: Sequence[Needed], transport: Transport) -> Downloads:
    """Ask the hubs for files and sizes of the missing references. Raises `ConfigError` for an invalid reference."""
    from pipeline.hubs.download_progress import speed
    from pipeline.hubs.downloading import free_bytes, to_fetch_bytes

    items = tuple(_item(one, transport) for one in _each_once(needs))
    files = [file for item in items if item.plan for file in item.plan.missing]
    expected, is_measured = speed()
    return Downloads(items, True, to_fetch_bytes(files), free_bytes(), expected, is_measured)


def fetch(needs: Sequence[Needed], config: BatchConfig) -> None:
    """Fetch all of these, or nothing if one cannot be fetched or the disk has no room for all.

    Raises `ConfigError` for that, with a line for each, and `RunStopped` for what may go well the next time: a hub that
    cannot be reached, a download that broke off, Ctrl-C. What has come stays, and the same command goes on.
    """
    from pipeline.hubs.download_progress import progress_bars
    from pipeline.hubs.fetch_model import fetch as fetch_one
    from pipeline.hubs.results import Ok
    from pipeline.registry.database import Registry

    transport = open_transport(config.hub, quiet=config.quiet)
    try:
        found = look_up(needs, transport)
        _refuse(found)
        bars = nullcontext() if config.quiet else progress_bars()
        with Registry() as registry, bars as progress:
            for item in found.items:
                if item.plan is None:
                    continue  # another process has fetched it by now
                transport.say(f"fetching {item.plan.model.reference}: {_extent(item.plan)}")
                began = time.monotonic()
                said = fetch_one(item.plan.model, registry, transport, progress)
                if not isinstance(said, Ok):
                    raise RunStopped(f"{item.needed.noun} {said.say()}; {_GOES_ON}")
                took = duration_text(time.monotonic() - began)
                _log.info("fetched %s in %s: %s", item.plan.model.reference, took, _extent(item.plan))
    except DownloadError as error:
        raise RunStopped(str(error)) from error
    except KeyboardInterrupt:
        raise RunStopped(f"stopped while models were being fetched; {_GOES_ON}") from None


def lines(found: Downloads) -> Iterator[str]:
    """The lines of a dry run about missing models, the total first; none if nothing is missing."""
    if not found.items:
        return
    if not found.asked:
        yield f"not here      {len(found.items)} (hub.auto_download=true fetches them; no hub was asked)"
        yield from (f"  {item.needed.fault()}" for item in found.items)
        return
    plans = [item.plan for item in found.items if item.plan]
    if plans:
        files = len({file.url for plan in plans for file in plan.missing})
        room = f"{size_text(found.free_bytes)} free" if found.fits else _no_room(found)
        yield f"to fetch      {_counted(files, 'file')}, {size_text(found.bytes)}; {room}; {_time(found)}"
    else:
        yield "to fetch      nothing that can be downloaded"
    here = [(item.needed.noun, item.needed.reference, _extent(item.plan)) for item in found.items if item.plan]
    yield from (f"  {line}" for line in aligned(here))
    yield from (f"  {item.needed.noun} {item.problem}" for item in found.items if item.problem)


def values(found: Downloads) -> dict[str, Any]:
    """The same for a script: `missing`, by reference, and `download`, the total; null if no hub was asked."""
    missing = [
        {
            "reference": item.needed.reference,
            "what": item.needed.noun,
            "files": len(item.plan.missing) if item.plan else None,
            "bytes": item.plan.bytes if item.plan else None,
            "problem": item.problem,
        }
        for item in found.items
    ]
    total = {
        "bytes": found.bytes,
        "free_bytes": found.free_bytes,
        "fits": found.fits,
        "seconds": round(found.bytes / found.speed, 1),
        "bytes_per_second": round(found.speed),
        "measured": found.is_measured,
    }
    return {"missing": missing, "download": total if found.asked else None}


def _each_once(needs: Sequence[Needed]) -> list[Needed]:
    """Several keys may name the same."""
    return list({(one.reference, one.noun): one for one in reversed(needs)}.values())[::-1]


def _item(needed: Needed, transport: Transport) -> DownloadItem:
    from pipeline.hubs.civitai import would_be_refused
    from pipeline.hubs.fetch_model import DownloadPlan
    from pipeline.hubs.find_or_fetch import plan_download
    from pipeline.hubs.results import PASSING, Ok

    said = plan_download(needed.reference, transport, noun=needed.noun)
    problem = None if isinstance(said, Ok) else said
    plan = said.value if isinstance(said, Ok) and isinstance(said.value, DownloadPlan) else None
    if plan and plan.missing:
        problem = would_be_refused(plan.model, transport)
    if problem:
        return DownloadItem(needed, problem=problem.say(), is_passing=problem.kind in PASSING)
    return DownloadItem(needed, plan)


def _refuse(found: Downloads) -> None:
    """Where something cannot be had: raises `RunStopped` if that may be otherwise the next time, else `ConfigError`."""
    problems = [item for item in found.items if item.problem]
    said = [f"{item.needed.noun} {item.problem}" for item in problems]
    if problems and all(item.is_passing for item in problems):
        raise RunStopped("\n".join(said))
    if problems:
        raise ConfigError(said)
    if not found.fits:
        raise ConfigError(f"{size_text(found.bytes)} must be downloaded: {_no_room(found)}")


def _no_room(found: Downloads) -> str:
    from pipeline.registry.store_folders import store_folder

    return (
        f"only {size_text(found.free_bytes)} are free for {store_folder()}; make room there or set DARKROOM_HOME to "
        "another disk"
    )


def _extent(plan: DownloadPlan) -> str:
    return f"{_counted(len(plan.missing), 'file')}, {size_text(plan.bytes)}"


def _time(found: Downloads) -> str:
    how = "as the last download here" if found.is_measured else "assumed: none was measured here yet"
    return f"about {duration_text(found.bytes / found.speed)} at {size_text(found.speed)}/s ({how})"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
