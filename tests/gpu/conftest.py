"""Every test in this folder needs an NVIDIA GPU and a torch built for CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.system.device import find_device


def _why_not() -> str | None:
    try:
        find_device("cuda")
    except ConfigError as error:
        return f"needs a GPU: {error}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is collected here, and skip it with the reason where there is no GPU."""
    reason = _why_not()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
