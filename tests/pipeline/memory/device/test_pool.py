"""Components shared and evicted: a budget in true bytes, and memory that is really free afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.memory.device import device_copies
from pipeline.memory.device.offload_hooks import add_group_offload, add_model_offload
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantize, true_bytes

CPU = torch.device("cpu")
CARD = torch.device("cuda")
KILOBYTE = 1024


def weights(kilobytes: int) -> Callable[[], torch.nn.Module]:
    """A loader of a module of so many kilobytes of float32."""
    return lambda: torch.nn.Linear(KILOBYTE // 4, kilobytes, bias=False)


def test_a_key_is_loaded_once_and_held_once() -> None:
    pool = Pool()
    first, second = pool.get("encoder", weights(8)), pool.get("encoder", weights(8))
    assert first is second and pool.loads == 1
    assert pool.bytes_on_host == 8 * KILOBYTE == true_bytes(first)
    pool.release("encoder")
    assert pool.get("encoder", weights(8)) is first


def test_the_least_recently_used_is_evicted_first() -> None:
    pool = Pool(host_bytes=24 * KILOBYTE)
    for key in "abc":
        pool.get(key, weights(8))
        pool.release(key)
    pool.get("a", weights(8))
    pool.release("a")
    pool.get("d", weights(8))
    assert pool.loads == 4
    for key in "ac":  # b went
        pool.get(key, weights(8))
        pool.release(key)
    assert pool.loads == 4
    pool.get("b", weights(8))
    assert pool.loads == 5 and pool.bytes_on_host <= 24 * KILOBYTE


def test_room_is_made_before_loading() -> None:
    pool = Pool(host_bytes=16 * KILOBYTE)
    pool.get("old", weights(16))
    pool.release("old")
    seen: list[int] = []

    def load() -> torch.nn.Module:
        seen.append(pool.bytes_on_host)
        return weights(16)()

    pool.get("new", load, expected_bytes=16 * KILOBYTE)
    assert seen == [0]


def test_what_is_in_use_stays_whatever_the_budget() -> None:
    pool = Pool(host_bytes=8 * KILOBYTE)
    used = {key: pool.get(key, weights(8)) for key in "abc"}
    for module in used.values():
        pool.to_device(module, CPU)
    assert all(pool.get(key, weights(8)) is module for key, module in used.items())
    assert all(pool.is_on_device(module) for module in used.values())


def test_a_failed_load_leaves_nothing_behind() -> None:
    pool = Pool()
    with pytest.raises(MemoryError):
        pool.get("a", lambda: (_ for _ in ()).throw(MemoryError()))
    assert pool.loads == 0 and pool.bytes_on_host == 0
    assert pool.get("a", weights(1)) is not None


class OnCard(torch.nn.Linear):
    """Plays a module on a card that this machine does not have: says where it was moved, and stays."""

    place = "cpu"
    room_on_host = True

    def to(self, device: Any) -> Any:  # type: ignore[override]
        if torch.device(device).type == "cpu" and not self.room_on_host:
            raise RuntimeError("can't allocate memory: you tried to allocate 8192 bytes")
        self.place = torch.device(device).type
        return self


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights move, as where the host has no room for what is on the card too."""
    monkeypatch.setattr(device_copies, "can_stay", lambda module: False)


def test_what_stays_on_the_host_counts_there_and_needs_no_room_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_copies, "can_stay", lambda module: True)
    monkeypatch.setattr(device_copies, "copied", lambda tensor, device: tensor)
    pool = Pool(host_bytes=16 * KILOBYTE)
    module = on_card(pool, "denoiser", 16)
    assert bytes_on_device(pool, module) == pool.bytes_on_host == 16 * KILOBYTE
    pool.release("denoiser")
    assert pool.key_of(module) == "denoiser" and not pool.is_on_device(module)
    assert pool.bytes_on_host == 16 * KILOBYTE


def bytes_on_device(pool: Pool, *modules: torch.nn.Module) -> int:
    return sum(true_bytes(module) for module in modules if pool.is_on_device(module))


def on_card(pool: Pool, key: str, kilobytes: int = 8) -> OnCard:
    module: OnCard = pool.get(key, lambda: OnCard(KILOBYTE // 4, kilobytes, bias=False))
    pool.to_device(module, CARD)
    return module


def test_what_nobody_uses_leaves_the_device() -> None:
    """Or the next model would find it full of the one before."""
    pool = Pool(host_bytes=64 * KILOBYTE)
    encoder, denoiser = on_card(pool, "encoder"), on_card(pool, "denoiser", 16)
    pool.get("encoder", OnCard)  # another model's as well
    pool.release("encoder")
    pool.release("denoiser")
    assert (encoder.place, denoiser.place) == ("cuda", "cpu")
    assert (bytes_on_device(pool, encoder, denoiser), pool.bytes_on_host) == (8 * KILOBYTE, 16 * KILOBYTE)
    assert pool.is_on_device(encoder) and not pool.is_on_device(denoiser)
    pool.release("encoder")
    assert (encoder.place, bytes_on_device(pool, encoder, denoiser)) == ("cpu", 0)
    assert pool.bytes_on_host == 24 * KILOBYTE


def test_what_comes_from_the_device_counts_for_the_host() -> None:
    pool = Pool(host_bytes=24 * KILOBYTE)
    for key in ("old", "new"):
        on_card(pool, key, 16)
    pool.release("old")
    pool.release("new")
    assert pool.bytes_on_host == 16 * KILOBYTE and pool.key_of(on_card(pool, "new")) == "new"
    assert pool.loads == 2, "the older one went"
    pool.release("new")
    pool.to_host(on_card(pool, "third", 16))
    assert pool.bytes_on_host == 16 * KILOBYTE, "room was made for what is in use, too"


def test_without_room_on_the_host_it_is_forgotten_instead() -> None:
    pool = Pool(host_bytes=12 * KILOBYTE)
    large = on_card(pool, "large", 16)
    pool.release("large")
    assert large.place == "cuda", "not moved first, which would take the memory that is not there"
    assert pool.key_of(large) is None and pool.bytes_on_host == 0 == bytes_on_device(pool, large)
    small = on_card(pool, "small")
    small.room_on_host = False
    pool.release("small")
    assert pool.key_of(small) is None and bytes_on_device(pool, large, small) == 0


def test_what_was_loaded_onto_a_device_is_known_to_be_there() -> None:
    """As weights in 4 bits are, which only the device can make. meta plays the GPU, from where nothing comes back."""
    pool = Pool()
    module = pool.get("int4", lambda: torch.nn.Linear(256, 8, bias=False, device="meta"))
    assert pool.is_on_device(module)
    assert (bytes_on_device(pool, module), pool.bytes_on_host) == (8 * KILOBYTE, 0)
    pool.release("int4")
    assert pool.key_of(module) is None


def test_clearing_tells_what_it_freed_and_spares_what_is_used() -> None:
    pool = Pool()
    used, idle, moved = (pool.get(key, weights(size)) for key, size in (("used", 1), ("idle", 2), ("moved", 4)))
    for key in ("idle", "moved"):
        pool.release(key)
    moved.to("meta")
    assert pool.clear(on_device=True) == 4 * KILOBYTE
    assert pool.key_of(idle) == "idle" and pool.key_of(moved) is None
    assert pool.clear() == 2 * KILOBYTE
    assert pool.clear() == 0 and pool.key_of(used) == "used"


def test_discarded_is_kept_for_nobody_but_its_other_users() -> None:
    pool = Pool()
    module = pool.get("a", weights(1))
    pool.get("a", weights(1))
    pool.release("a", keep=False)
    assert pool.get("a", weights(1)) is module
    pool.release("a", keep=False)
    pool.release("a", keep=False)
    assert pool.get("a", weights(1)) is not module


def test_quantised_weights_are_counted_as_they_are_stored() -> None:
    pool = Pool()

    def load() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))
        quantize(model, "int8")
        return model

    pool.get("int8", load)
    assert 256 * 256 <= pool.bytes_on_host < 256 * 256 * 1.1  # one byte per weight, scales besides


def with_accelerate_hooks(module: torch.nn.Module) -> None:
    from accelerate import cpu_offload_with_hook

    _, first = cpu_offload_with_hook(module[0], CPU)
    cpu_offload_with_hook(module[1], CPU, prev_module_hook=first)


def with_model_offload(module: torch.nn.Module) -> None:
    add_model_offload(module.children(), CPU)


def with_group_offload(module: torch.nn.Module) -> None:
    add_group_offload(module, CPU, by_leaf=True)


@pytest.mark.parametrize("hook", [lambda _: None, with_accelerate_hooks, with_model_offload, with_group_offload])
def test_an_evicted_module_is_gone(hook: Callable[[Any], None]) -> None:
    pool = Pool(host_bytes=3 * KILOBYTE)

    def load() -> torch.nn.Module:
        return torch.nn.Sequential(weights(1)(), weights(1)())

    module = pool.get("hooked", load)
    hook(module)
    alive = weakref.ref(module)
    del module
    pool.release("hooked")
    assert alive() is not None
    gc.disable()  # the pool itself must collect
    try:
        pool.get("next", weights(2))
        assert alive() is None
    finally:
        gc.enable()
