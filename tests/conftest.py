"""Paths and models that tests of all folders share."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from hub_protocols import Samples
    from hub_server import HubServer
    from small_disk import SmallDisk

# Two test processes share the cores; torch's threads would wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# In CI the same few examples every time: what lands must not depend on luck. Elsewhere they vary, and `make campaign`
# tries many, to find more. Machines may be busy, so there is no deadline.
settings.register_profile("steady", deadline=None, derandomize="CI" in os.environ, max_examples=30)
settings.register_profile("campaign", deadline=None, max_examples=3000)
settings.load_profile("steady")

# Where the tests are started in a shell's background, Ctrl-C is ignored, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Importing makes no garbage, and looking for it takes a quarter of the time; nor do the tests become garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # some libraries complain of what is alive when Python ends


TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples")]  # tiny_models, build_tiny_models


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Darkroom's data folder for one test, which does not exist yet; nothing of the user's says anything of hubs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    for name in ("HF_ENDPOINT", "HF_TOKEN", "CIVITAI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def hub(samples: Samples) -> Iterator[HubServer]:
    """Both hubs, at one address, with what the test's own `samples` are."""
    from hub_protocols import add_hubs
    from hub_server import HubServer

    with HubServer() as server:
        add_hubs(server, samples)
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 4 MiB, empty."""
    from small_disk import mounted

    with mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all xdist workers of one session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared_folder: Path) -> Iterator[None]:
    """Hashes of model files, the registry and options are the session's, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_folder / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(shared_folder / "config"))
        patch.setenv("DARKROOM_HOME", str(shared_folder / "home"))
        yield


@pytest.fixture(scope="session")
def built_models(pytestconfig: pytest.Config) -> Path:
    """Where tiny models are kept from one session to the next, until what builds them is another."""
    sources = [*sorted(TESTS.glob("tiny_*.py")), *sorted((TESTS.parent / "examples").glob("build_*.py"))]
    built_by = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    for package in ("torch", "diffusers", "transformers", "tokenizers", "safetensors"):
        built_by.update(importlib.metadata.version(package).encode())
    return pytestconfig.cache.mkdir(f"models-{built_by.hexdigest()[:16]}")


@contextmanager
def building(folder: Path) -> Iterator[Path | None]:
    """Yields where to build `folder`, which then gets its name, or None if it is there; for one process at a time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            yield None
            return
        unfinished = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        yield unfinished
        unfinished.rename(folder)


@pytest.fixture(scope="session")
def tiny_models(built_models: Path) -> Path:
    """A folder with one tiny model per sub-folder (see `tiny_models.FOLDERS`), made in a process of its own."""
    folder = built_models / "tiny"
    with building(folder) as place:
        if place:
            subprocess.run([sys.executable, TESTS / "tiny_models.py", place], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tiny_models: Path) -> Path:
    """A Stable Diffusion folder that makes 32 x 32 pictures of noise in milliseconds."""
    return tiny_models / "sd"


@pytest.fixture(scope="session")
def tiny(built_models: Path) -> Callable[[str], Path]:
    """The folder of a tiny model of any family of `pipeline.weights.families`, written when first asked for."""

    def folder_of(family: str) -> Path:
        folder = built_models / "families" / family
        with building(folder) as place:
            if place:
                from pipeline.loading.offline import import_libraries

                import_libraries()
                from tiny_models import write_tiny

                write_tiny(family, place)
        return folder

    return folder_of
