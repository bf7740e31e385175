"""Page-locked memory, told apart by what allocated it: there is none without a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch

from pipeline.memory.device import page_locked
from pipeline.memory.device.page_locked import PageLockedMemory, to_pageable
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantize

CHUNK = 2**12


class Chunks:
    """Pieces of ordinary memory that pass for page-locked; `alive` are those in which some tensor lies."""

    def __init__(self) -> None:
        self.taken: list[weakref.ref[bytearray]] = []
        self.most = 0
        self.emptied: list[int] = []

    @property
    def alive(self) -> list[bytearray]:
        return [memory for reference in self.taken if (memory := reference()) is not None]

    def take(self, size: int) -> torch.Tensor:
        memory = Memory(size)
        self.taken.append(weakref.ref(memory))
        return torch.frombuffer(memory, dtype=torch.uint8)

    def have(self, tensor: torch.Tensor) -> bool:
        starts = [torch.frombuffer(memory, dtype=torch.uint8).data_ptr() for memory in self.alive]
        return any(start <= tensor.data_ptr() < start + CHUNK for start in starts)


class Memory(bytearray):
    """A `bytearray` that can be referred to weakly."""


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Chunks:
    found = Chunks()
    monkeypatch.setattr(page_locked, "CHUNK", CHUNK)
    monkeypatch.setattr(page_locked, "_page_locked", found.take)
    monkeypatch.setattr(page_locked, "empty_host_cache", lambda: found.emptied.append(len(found.alive)))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: found.have(tensor))
    return found


def layers() -> torch.nn.Module:
    """Sixteen layers of 1088 bytes, three to a chunk; the last one has no weight of its own."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(16))).requires_grad_(False)
    module[15].weight = module[14].weight
    return module


@pytest.mark.parametrize("kind", [None, "int8"])
def test_weights_come_and_go_and_compute_the_same(kind: str | None, chunks: Chunks) -> None:
    module, x = layers(), torch.randn(2, 16)
    if kind:
        module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
        quantize(module.requires_grad_(False), "int8")
        x = torch.randn(2, 64)
    expected = module(x)
    memory = PageLockedMemory()
    memory.take(module)
    assert torch.equal(module(x), expected) and len(chunks.alive) >= 3
    count = len(chunks.taken)
    memory.take(module)
    PageLockedMemory().take(module)
    assert len(chunks.taken) == count, "what is page-locked stays where it is"
    del memory
    to_pageable(module)
    assert torch.equal(module(x), expected)
    assert not chunks.alive and chunks.emptied[-1] == 0
    assert not any(map(chunks.have, module.parameters()))


def test_each_chunk_goes_before_the_next_one_is_copied(chunks: Chunks) -> None:
    module = layers()
    PageLockedMemory().take(module)
    count = len(chunks.alive)
    to_pageable(module)
    assert count == 5 and chunks.emptied[-1] == 0
    assert len(chunks.emptied) >= 4 and sorted(chunks.emptied, reverse=True) == chunks.emptied
    assert module[15].weight is module[14].weight


def test_nothing_is_done_where_nothing_is_page_locked(chunks: Chunks) -> None:
    module = layers()
    before = [tensor.data_ptr() for tensor in module.parameters()]
    to_pageable(module)
    assert [tensor.data_ptr() for tensor in module.parameters()] == before and not chunks.emptied


@pytest.mark.parametrize("host_bytes", [None, 0])
def test_what_waits_for_the_next_model_is_not_page_locked(host_bytes: int | None, chunks: Chunks) -> None:
    pool = Pool(host_bytes)
    PageLockedMemory().take(pool.get("streamed", layers))
    pool.get("streamed", layers)
    pool.release("streamed")
    assert chunks.alive, "somebody uses it"
    pool.release("streamed")
    assert not chunks.alive
    assert bool(chunks.emptied) == (host_bytes is None), "what is forgotten is not copied first"


@pytest.mark.parametrize("names", [("_accelerator_emptyHostCache", "_host_emptyCache"), ("_host_emptyCache",), ()])
def test_the_host_cache_is_emptied_as_each_torch_calls_it(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def noting(name: str) -> Callable[[], None]:
        return lambda: called.append(name)

    for name in ("_accelerator_emptyHostCache", "_host_emptyCache"):
        monkeypatch.delattr(torch._C, name, raising=False)
    for name in names:
        monkeypatch.setattr(torch._C, name, noting(name), raising=False)
    page_locked.empty_host_cache()
    assert called == [*names[:1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_weights_go_through_two_buffers_none_of_which_is_filled_before_it_was_sent(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device copies later than it is told to: until its event came, a buffer must stay as it was."""
    taken: list[torch.Tensor] = []
    events: list[tuple[torch.Tensor, torch.Tensor]] = []

    def take(size: int) -> torch.Tensor:
        taken.append(torch.zeros(size, dtype=torch.uint8))
        return taken[-1]

    class Event:
        def __init__(self, _: torch.device) -> None:
            self.buffer = taken[len(events) % 2]
            self.content = self.buffer.clone()
            events.append((self.buffer, self.content))

        def synchronize(self) -> None:
            assert torch.equal(self.buffer, self.content)
            waited.append(self)

    waited: list[Event] = []
    monkeypatch.setattr(page_locked, "PIECE", 4096)
    monkeypatch.setattr(page_locked, "_page_locked", take)
    monkeypatch.setattr(page_locked, "_sent", Event)
    buffers = page_locked.LoadingBuffers()
    for shape in ((3000, 7), (5,), (64, 64)):
        weight = torch.randint(-100, 100, shape).to(dtype)
        assert torch.equal(buffers.copy(weight, torch.device("cpu")), weight)
    assert len(taken) == 2 and len(waited) == len(events) - 2 > 4
    assert [sum(event[0] is one for event in events) for one in taken] == [-(-len(events) // 2), len(events) // 2]
