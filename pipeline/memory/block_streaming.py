"""A model larger than the device: its first blocks stay there, the others pass through, one ahead of the one at work.

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

from pipeline.memory.alignment import copy_at, offset_of
from pipeline.memory.quantization import true_bytes

if TYPE_CHECKING:
    import torch

CHUNK = 2**28
"""Bytes of page-locked memory taken at once; torch rounds each piece up to a power of two, which this already is."""


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
    """Blocks of one module, streamed. `enter` before it runs, `leave` when the device is needed for something else."""

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
        self._side: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pinned: _PinnedMemory | None = _PinnedMemory() if self._side else None
        self._handles = [module.register_forward_pre_hook(lambda *_: self.enter())]
        for block in self.blocks:
            self._handles.append(block.register_forward_pre_hook(lambda block, _: self._before(block)))
            # Also when the block raises: an interrupted run must leave the weights where they belong.
            self._handles.append(block.register_forward_hook(lambda block, *_: self._after(block), always_call=True))
        self.entered = False
        self.resize(resident_bytes)

    def resize(self, resident_bytes: int) -> None:
        """Let as many of the first blocks stay on the device as fit into so many bytes."""
        free, count = resident_bytes, 0
        for block in self.blocks:
            free -= true_bytes(block)
            if free < 0:
                break
            count += 1
        if self.streamed == self.blocks[count:]:
            return
        inside, self.entered = self.entered, False
        self.streamed = self.blocks[count:]
        self._passing = {id(block) for block in self.streamed}
        for key in list(self._copies):
            self._offload(key)
        if inside:
            self.enter()

    def enter(self) -> None:
        """Put what stays on the device there: the first blocks, and everything that is in no block."""
        if self.entered:
            return
        self._onload(id(self.module), _tensors(self.module, self._passing))
        if self._pinned is not None:
            for block in self.streamed:
                self._pinned.take(block)
        self.entered = True

    def leave(self) -> None:
        """Take everything off the device."""
        for key in list(self._copies):
            self._offload(key)
        self.entered, self._last = False, None

    def remove(self) -> None:
        """Leave the module as it was, on the host, without hooks."""
        self.leave()
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
        self._onload(id(block), _tensors(block, set()), ahead=True)
        if self._side:
            torch.cuda.current_stream(self.device).wait_event(self._ready[id(block)])
        if following is not None:
            self._onload(id(following), _tensors(following, set()), ahead=True)

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
            for owner, name, original in tensors:
                if id(original) not in known:
                    known[id(original)] = _copied(original, self.device)
                originals.append((owner, name, original))
                owner[name] = known[id(original)]
            if ahead and self._side:
                self._ready[key] = self._side.record_event()

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


class _PinnedMemory:
    """Page-locked host memory: only from there can the device fetch while the CPU goes on."""

    def __init__(self) -> None:
        self._chunk: Any = None
        self._used = 0

    def take(self, block: Any) -> None:
        """Move a block's tensors into page-locked memory, once; without enough of it they stay where they are."""
        import torch

        with torch.inference_mode(False):  # these stay, and ordinary weights is what they must remain
            for owner, name, original in list(_tensors(block, set())):
                pinned = self._pinned(original)
                if pinned is not original:
                    owner[name] = _like(pinned, original)

    def _pinned(self, tensor: Any) -> Any:
        import torch

        if hasattr(tensor, "__tensor_flatten__"):
            names, context = tensor.__tensor_flatten__()
            inner = {name: self._pinned(getattr(tensor, name)) for name in names}
            if all(inner[name] is getattr(tensor, name) for name in names):
                return tensor
            return type(tensor).__tensor_unflatten__(inner, context, tensor.shape, tensor.stride())
        size = tensor.numel() * tensor.element_size()
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not size or tensor.is_pinned():
            return tensor
        space = self._space(size)
        if space is None:
            return tensor
        return space.view(tensor.dtype).as_strided(tensor.shape, tensor.stride()).copy_(tensor.data)

    def _space(self, size: int) -> Any:
        import torch

        start = -(-self._used // 256) * 256
        if self._chunk is None or start + size > self._chunk.numel():
            try:
                self._chunk = torch.empty(max(CHUNK, size), dtype=torch.uint8, pin_memory=True)
            except RuntimeError:
                return None
            start = 0
        self._used = start + size
        return self._chunk[start : start + size]


def _tensors(module: Any, without: set[int]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every parameter and buffer with the dictionary that holds it, as they are now (LoRA layers come and go)."""
    if id(module) in without:
        return
    for owner in (module._parameters, module._buffers):
        yield from ((owner, name, tensor) for name, tensor in list(owner.items()) if tensor is not None)
    for child in module.children():
        yield from _tensors(child, without)


def _copied(tensor: Any, device: torch.device) -> Any:
    if hasattr(tensor, "__tensor_flatten__"):  # not all of them know all forms of `to`
        names, context = tensor.__tensor_flatten__()
        inner = {name: _copied(getattr(tensor, name), device) for name in names}
        return _like(type(tensor).__tensor_unflatten__(inner, context, tensor.shape, tensor.stride()), tensor)
    if device.type == "cpu":
        return _like(copy_at(tensor.data, offset_of(tensor)), tensor)
    return _like(tensor.to(device, non_blocking=True, copy=True), tensor)


def _like(tensor: Any, original: Any) -> Any:
    """A parameter for a parameter, a buffer for a buffer."""
    import torch

    if isinstance(original, torch.nn.Parameter) and not isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(tensor, requires_grad=False)
    return tensor


def _bytes(modules: Any) -> int:
    return sum(true_bytes(module) for module in modules)
