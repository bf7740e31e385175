"""The machine: its device, its environment, and what its GPUs, processors and memory are doing.

    from pipeline.system import read_resources
    print(read_resources().ram_available_bytes)

The names below are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.system.resources import GpuUse, ResourceMonitor, Resources, ResourceStatistics, read_resources

__all__ = ["GpuUse", "ResourceMonitor", "ResourceStatistics", "Resources", "read_resources"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipeline.system' has no attribute {name!r}")
    return getattr(import_module("pipeline.system.resources"), name)
