"""Batches that run as a user runs them; their processes are gone when a test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import ensure_server
from running import Batch


@pytest.fixture(scope="session", autouse=True)
def server() -> None:
    """First of all, since the server that a run within this process would start has less imported."""
    ensure_server()


@pytest.fixture
def make_batch(tmp_path: Path, tiny_sd: Path) -> Iterator[Callable[..., Batch]]:
    """Makes batches, by default of the tiny model and two prompts, in `tmp_path / "out"`."""
    batches: list[Batch] = []

    def make(
        lines: object = ("a red house", "a blue boat"), *overrides: str, model: Path | str = tiny_sd, out: str = "out"
    ) -> Batch:
        batches.append(Batch(tmp_path, tmp_path / out, lines, overrides, model))
        return batches[-1]

    yield make
    for batch in batches:
        batch.kill_all()
