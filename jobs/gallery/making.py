"""More pictures like one: the command that makes them, and with `--make` a run of it on this machine, one at a time.

The command is built from a closed list of keys, each with the range that it has everywhere; no text of the page is ever
a part of it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from jobs.archive.more import NEW_SEEDS
from jobs.config.faults import nearest
from jobs.config.model_profiles import profile_files, profile_in
from jobs.gallery.marks import ImageId
from jobs.manifest.layout import command
from jobs.terminal import printable
from pipeline.errors import ConfigError
from pipeline.ranges import STRICT, Guidance, Range, Side, Steps, one_of
from pipeline.registry.database import Registry
from pipeline.registry.queries import list_models
from pipeline.registry.resolve import is_remote
from pipeline.registry.store_folders import registry_file
from pipeline.registry.storing import key_of
from pipeline.schedulers import SAMPLERS
from pipeline.weights.references import EMBEDDED, SCHEMES

LOG_BYTES, LOG_LINES = 20_000, 100
"""Of the end of a run's output, which is in view."""

_PATIENCE_S = 20.0
"""Within which a run has stopped that was asked to; all that it made is kept, and it can be resumed."""

_KEYS = {
    "steps": "sampling.steps",
    "guidance_scale": "sampling.guidance_scale",
    "scheduler": "sampling.scheduler",
    "width": "sampling.width",
    "height": "sampling.height",
}
"""Keys of a run by the names of `More`, but for the model's."""

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Names of models that are offered: those that stand in a command as they are."""

SEED_COUNT = Range(1, 64, whole=True)


class More(BaseModel):
    """What is asked for: new seeds, and settings that differ from those of the picture."""

    model_config = STRICT

    image: ImageId
    seeds: Annotated[int, SEED_COUNT.limits] = NEW_SEEDS
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Annotated[str, one_of(SAMPLERS)] | None = None
    width: Side | None = None
    height: Side | None = None
    model: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")] | None = None


def choices() -> dict[str, list[str]]:
    """What a form may offer by name: schedulers, and the models that are on this machine."""
    profiles = [name for name, source in _profiles().items() if _is_here(source)]
    return {"schedulers": list(SAMPLERS), "models": sorted({*profiles, *_registered()}, key=str.casefold)}


def settings(more: More) -> list[str]:
    """The settings of a request as words of a command. Raises `ConfigError` for a model that there is not."""
    changed = ((key, getattr(more, name)) for name, key in _KEYS.items())
    words = [f"{key}={_value(value)}" for key, value in changed if value is not None]
    return [f"seeds={more.seeds}", *words, *(_model_words(more.model) if more.model else ())]


def _model_words(name: str) -> tuple[str, ...]:
    if name in _profiles():
        return (f"model={name}",)
    if name in (known := _registered()):
        return ("model=custom", f"model.source={name}")
    raise ConfigError(f"model: {name}: there is no such model{nearest(name, [*_profiles(), *known])}")


def _profiles() -> dict[str, str]:
    """The sources of the model profiles, by name; those that no run would read are left out."""
    found = {}
    for path in profile_files():
        with suppress(ConfigError, ValidationError):
            if (model := profile_in(path)) and _NAME.fullmatch(path.stem):
                found[path.stem] = model.source
    return found


def _registered() -> list[str]:
    """The names that mean one of the registry's models each."""
    if not registry_file().exists():
        return []
    with Registry() as registry:
        models = list_models(registry, kind="checkpoint")
    names = Counter(key_of(model.name) for model in models)
    return [
        one.name for one in models if names[key_of(one.name)] == 1 and _NAME.fullmatch(one.name) and one.path.exists()
    ]


def _is_here(source: str) -> bool:
    if source.startswith(SCHEMES):
        return not is_remote(source)
    return source in EMBEDDED or Path(source).expanduser().exists()


def _value(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"'{text}'" if " " in text or "+" in text else text


def more_command(more: More, path: str, output_dir: Path) -> str:
    """The command for a shell."""
    words = (shlex.quote(word) for word in (str(output_dir / path), *settings(more)))
    return command(output_dir, f"more {' '.join(words)}")


class Maker:
    """The one run that a gallery may have at work."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-gallery-", ignore_cleanup_errors=True)
        self._log = Path(self._folder.name) / "log"
        self._run: subprocess.Popen[bytes] | None = None
        self._shown = ""

    def start(self, more: More, path: str) -> None:
        """Start making. Raises `ConfigError` while another run is at work."""
        words = ["more", more.image, *settings(more), "--output-dir", str(self._output_dir)]
        with self._lock:
            if self._run is not None and self._run.poll() is None:
                raise ConfigError("one run at a time: another one is at work")
            self._shown = more_command(more, path, self._output_dir)
            with self._log.open("wb") as log:
                self._run = subprocess.Popen(
                    [sys.executable, "-m", "jobs", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal asks the gallery, and that asks the run
                )

    def state(self) -> dict[str, Any] | None:
        """The command, the last lines of its output, and its exit code when it has ended; None before the first."""
        with self._lock:
            if self._run is None:
                return None
            code = self._run.poll()
            return {"command": self._shown, "code": code, "lines": self._lines()}

    def close(self) -> None:
        """Stop a run that is at work, as Ctrl-C does."""
        with self._lock:
            if self._run is not None and self._run.poll() is None:
                self._run.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
                try:
                    self._run.wait(_PATIENCE_S)
                except subprocess.TimeoutExpired:
                    self._run.kill()
                    self._run.wait()
            self._folder.cleanup()

    def _lines(self) -> list[str]:
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
            text = log.read(LOG_BYTES).decode("utf-8", "replace")
        lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
        return [printable(line) for line in lines if line.strip()][-LOG_LINES:]
