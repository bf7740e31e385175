"""Streams a model larger than the device: some blocks stay there, the others are copied one ahead of the computation.

Those that pass are spread evenly among those that stay, which give their copies time.

The module stays whole on the host. What runs is a copy on the device, put in its place block by block: weights do not
change while pictures are made, so nothing is ever copied back, and taking the copies away restores what was.

    copying     | block 1 | block 2 | block 3 |         <- a stream of its own, from page-locked memory
    computing             | block 1 | block 2 | block 3 |

Which block follows is learned by watching and is only a hint: a block that runs unexpectedly is copied when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pipeline.memory.device.device_copies import copied, tensors_of
from pipeline.memory.device.page_locked import PageLockedMemory
from pipeline.memory.device.quantization import true_bytes

if TYPE_CHECKING:
    import torch


def blocks_of(module: Any) -> list[Any]:
    """The repeated blocks of a model, in the order of its definition: each an element of a `ModuleList`.

    Named by the model's class (`_repeated_blocks`, `_no_split_modules`), the innermost ones: a UNet's residual and
    transformer blocks, a transformer's layers. Where the class names none, the elements of its largest `ModuleList`s.
    """
    import torch

    lists = [child for child in module.modules() if isinstance(child, torch.nn.ModuleList)]
    elements = [element for one in lists for element in one]
    named = {*(getattr(module, "_repeated_blocks", None) or ()), *(getattr(module, "_no_split_modules", None) or ())}
    found = [element for element in elements if type(element).__name__ in named]
    if not found and lists:
        largest = max(sum(true_bytes(element) for element in one) for one in lists)
        found = [element for one in lists if _bytes(one) * 2 > largest for element in one]
        inside = {id(child) for element in found for child in element.modules() if child is not element}
        return [element for element in found if id(element) not in inside]
    chosen = {id(element) for element in found}
    return [e for e in found if not any(id(child) in chosen for child in e.modules() if child is not e)]


class BlockStreaming:
    """Streams the blocks of one module. `enter` before it runs, `leave` when the device is needed otherwise."""

    def __init__(self, module: Any, device: torch.device, resident_bytes: int) -> None:
        """`resident_bytes`: how much of the blocks may stay on the device; two more pass through it."""
        import torch

        self.module = module
        self.device = device
        self.blocks = blocks_of(module)
        self.streamed: list[Any] = []
        self._passing: set[int] = set()
        self._copies: dict[int, list[tuple[dict[str, Any], str, Any]]] = {}
        self._ready: dict[int, Any] = {}
        self._following: dict[int, Any] = {}
        self._last: Any = None
        self._timed: tuple[Any, Any, int] | None = None
        self._side: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._page_locked: PageLockedMemory | None = PageLockedMemory() if self._side else None
        self._handles = [module.register_forward_pre_hook(lambda *_: self.enter())]
        for block in self.blocks:
            self._handles.append(block.register_forward_pre_hook(lambda block, _: self._before(block)))
            # Also when the block raises: an interrupted run must leave the weights where they belong.
            self._handles.append(block.register_forward_hook(lambda block, *_: self._after(block), always_call=True))
        self.entered = False
        self.resize(resident_bytes)

    def resize(self, resident_bytes: int) -> None:
        """Keep as many blocks on the device as fit into this many bytes."""
        streamed = self._to_stream(resident_bytes)
        if self.streamed == streamed:
            return
        inside, self.entered = self.entered, False
        self.streamed = streamed
        self._passing = {id(block) for block in self.streamed}
        for key in list(self._copies):
            self._offload(key)
        if inside:
            self.enter()

    def _to_stream(self, resident_bytes: int) -> list[Any]:
        """The fewest blocks, evenly spread, without which the others fit."""
        sizes = {id(block): true_bytes(block) for block in self.blocks}
        for count in range(len(self.blocks)):
            spread = range(len(self.blocks))
            chosen = [n for n in spread if (n + 1) * count // len(spread) > n * count // len(spread)]
            streamed = [self.blocks[n] for n in chosen]
            if sum(sizes.values()) - sum(sizes[id(block)] for block in streamed) <= resident_bytes:
                return streamed
        return self.blocks

    def copy_rate(self) -> float | None:
        """Bytes per second of the last block that was copied while others computed; None if none was. Waits for it."""
        if self._timed is None:
            return None
        began, ended, size = self._timed
        ended.synchronize()
        return float(size / began.elapsed_time(ended) * 1000)

    def enter(self) -> None:
        """Move the resident blocks, and all weights outside of blocks, to the device."""
        if self.entered:
            return
        self._onload(id(self.module), tensors_of(self.module, self._passing))
        if self._page_locked is not None:
            for block in self.streamed:
                self._page_locked.take(block)
        self.entered = True

    def leave(self) -> None:
        """Remove all weights from the device."""
        for key in list(self._copies):
            self._offload(key)
        self.entered, self._last = False, None

    def remove(self) -> None:
        """Restore the module on the host, without hooks.

        Blocks stay in page-locked memory: often they are streamed again at once. Else, see `page_locked.to_pageable`.
        """
        self.leave()
        self._page_locked = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, block: Any) -> None:
        if id(block) not in self._passing:
            return
        import torch

        if self._last is not None:
            self._following[id(self._last)] = block
        self._last, following = block, self._following.get(id(block))
        wanted = {id(self.module), id(block), id(following)}
        for key in [key for key in self._copies if key not in wanted]:  # a hint that was wrong
            self._offload(key)
        self._onload(id(block), tensors_of(block, set()), ahead=True)
        if self._side:
            torch.cuda.current_stream(self.device).wait_event(self._ready[id(block)])
        if following is not None:
            self._onload(id(following), tensors_of(following, set()), ahead=True)

    def _after(self, block: Any) -> None:
        if id(block) in self._passing:
            self._offload(id(block))

    def _onload(self, key: int, tensors: Iterator[tuple[dict[str, Any], str, Any]], ahead: bool = False) -> None:
        if key in self._copies:
            return
        import torch

        originals = self._copies[key] = []
        known: dict[int, Any] = {}
        with torch.cuda.stream(self._side) if ahead and self._side else nullcontext():
            began = self._event() if ahead and self._side else None
            for owner, name, original in tensors:
                if id(original) not in known:
                    known[id(original)] = copied(original, self.device)
                originals.append((owner, name, original))
                owner[name] = known[id(original)]
            if ahead and self._side:
                self._ready[key] = self._event()
                self._timed = began, self._ready[key], sum(copy.nbytes for copy in known.values())

    def _event(self) -> Any:
        """On the side stream, now."""
        import torch

        return self._side.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]

    def _offload(self, key: int) -> None:
        if self._side:
            import torch

            # The copies were allocated on the side stream, so their memory is free for its next copy at once: that must
            # not overtake the kernels that still read them. (`record_stream` would instead let the CPU, which runs
            # ahead, ask for new memory for every block.)
            self._side.wait_stream(torch.cuda.current_stream(self.device))
        self._ready.pop(key, None)
        for owner, name, original in self._copies.pop(key, ()):
            owner[name] = original


def _bytes(modules: Any) -> int:
    return sum(true_bytes(module) for module in modules)
