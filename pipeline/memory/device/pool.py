"""A pool of loaded components, each loaded once for all models that share it, within a budget of true bytes."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.memory.device.device_copies import to_device, to_host, weights_stayed
from pipeline.memory.device.page_locked import to_pageable
from pipeline.memory.device.quantization import true_bytes

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class _Entry:
    """`users` counts the models that hold the module now; `device` is None while the module waits on the host."""

    module: Any
    bytes: int
    users: int = 0
    device: torch.device | None = None


class Pool:
    """Modules by key; the least recently used is dropped first. The budget is host memory in bytes, None for no limit.

    A module in use is never evicted, so the budget can be exceeded by what one model needs. A module that nobody uses
    waits on the host, since the device belongs to the model at work, and there in memory that is not page-locked. It
    has no hooks: whoever added some removes them before `release`.
    """

    def __init__(self, host_bytes: int | None = None) -> None:
        self.host_bytes = host_bytes
        self.loads = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable, load: Callable[[], Any], expected_bytes: int = 0) -> Any:
        """The module of a key, loaded if it is not in the pool, in use until `release`.

        `expected_bytes` makes room before loading, so that the peak stays within the budget too.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._fit_host(expected_bytes)
            module = load()
            self.loads += 1
            entry = self._entries[key] = _Entry(module, true_bytes(module), device=_device_of(module))
        entry.users += 1
        self._entries.move_to_end(key)
        self._fit_host()
        return entry.module

    def release(self, key: Hashable, *, keep: bool = True) -> None:
        """One user less; an unused module leaves the device and stays in the pool as far as the budget allows.

        Where there is no room for it on the host, and without `keep`, it is forgotten instead: its memory is free when
        the caller has dropped its own references too.
        """
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.users = max(0, entry.users - 1)
        entry.bytes = true_bytes(entry.module)
        goes = not entry.users and not (keep and self._came_to_host(entry))
        del entry  # or what is forgotten now would still be referred to
        if goes:
            self._forget([key])
        self._fit_host()
        left = self._entries.get(key)
        if left is not None and not left.users:
            to_pageable(left.module)

    def key_of(self, module: Any) -> Hashable | None:
        """The key of a module; None for one that is not in this pool."""
        return next((key for key, entry in self._entries.items() if entry.module is module), None)

    def is_shared(self, module: Any) -> bool:
        """Whether a module has more than one user."""
        entry = self._entry_of(module)
        return entry is not None and entry.users > 1

    def is_on_device(self, module: Any) -> bool:
        """Whether a module of this pool was last moved to the device."""
        entry = self._entry_of(module)
        return entry is not None and entry.device is not None

    def to_device(self, module: Any, device: torch.device) -> None:
        """Move a module to the device; its weights may stay on the host too, see `device_copies`."""
        entry = self._entry_of(module)
        if entry is not None:
            entry.device = device
        to_device(module, device)

    def to_host(self, module: Any) -> None:
        """Move a module to the CPU; unused modules there are dropped if the budget requires it."""
        entry = self._entry_of(module)
        if entry is not None and not _on_host(entry):
            self._fit_host(entry.bytes)
        to_host(module)
        if entry is not None:
            entry.device = None

    def clear(self, *, on_device: bool = False) -> int:
        """Drop every unused module, or only those in a device's memory; returns their bytes.

        Idle modules wait on the host, so of a device there is seldom anything to gain: only where somebody moved one
        after it was released.
        """
        idle = {key: entry for key, entry in self._entries.items() if not entry.users}
        if on_device:
            idle = {key: entry for key, entry in idle.items() if _device_of(entry.module) is not None}
        freed = sum(entry.bytes for entry in idle.values())
        going = list(idle)
        idle.clear()  # or the modules would still be referred to
        self._forget(going)
        return freed

    @property
    def bytes_on_host(self) -> int:
        """True bytes of the modules in host memory."""
        return sum(entry.bytes for entry in self._entries.values() if _on_host(entry))

    def _entry_of(self, module: Any) -> _Entry | None:
        return next((entry for entry in self._entries.values() if entry.module is module), None)

    def _came_to_host(self, entry: _Entry) -> bool:
        """Move an idle module off the device, unless the host has no room for it."""
        if entry.device is None:
            return True
        import torch

        if not _on_host(entry):
            self._fit_host(entry.bytes)
            if self.host_bytes is not None and self.bytes_on_host + entry.bytes > self.host_bytes:
                return False
        try:
            with torch.inference_mode(False):  # what is moved stays ordinary weights
                to_host(entry.module)
        except (RuntimeError, MemoryError):  # half of it may have come; nobody needs it
            return False
        entry.device = None
        return True

    def _fit_host(self, more: int = 0) -> None:
        if self.host_bytes is None:
            return
        too_many, going = self.bytes_on_host + more - self.host_bytes, []
        for key, entry in self._entries.items():
            if too_many > 0 and not entry.users and _on_host(entry):
                too_many -= entry.bytes
                going.append(key)
        self._forget(going)

    def _forget(self, keys: list[Hashable]) -> None:
        """Drop modules, and see that they go: those with hooks are cycles, which only the collector frees."""
        gone = [weakref.ref(self._entries.pop(key).module) for key in keys]
        if any(module() is not None for module in gone):
            gc.collect()


def _on_host(entry: _Entry) -> bool:
    return entry.device is None or entry.device.type == "cpu" or weights_stayed(entry.module)


def _device_of(module: Any) -> torch.device | None:
    """The device that a module lies on; None for the host."""
    tensor = next((tensor for of in (module.parameters, module.buffers) for tensor in of()), None)
    return None if tensor is None or tensor.device.type == "cpu" else tensor.device
