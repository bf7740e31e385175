"""Which failures mean that there was no memory, and which that the device is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipeline.errors import BadPixels, DeviceLost, JobFailure, OutOfHostMemory, OutOfMemory
from pipeline.system.failures import classify

NO_DEVICE_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)"),
    RuntimeError("Invalid buffer size: 24.00 GiB"),
]

NO_HOST_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    OSError(12, "Cannot allocate memory"),
]

LOST = [
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: unspecified launch failure"),
]


@pytest.mark.parametrize(
    "error", [*NO_DEVICE_MEMORY, *NO_HOST_MEMORY], ids=lambda error: str(error)[:40] or type(error).__name__
)
def test_no_memory_in_the_words_of_each_allocator(error: Exception) -> None:
    failure = classify(error)
    assert type(failure) is (OutOfMemory if error in NO_DEVICE_MEMORY else OutOfHostMemory)
    assert "\n" not in str(failure)
    assert "memory=aggressive" in str(failure)


FOR_WANT_OF_ROOM = [
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A card of 8 GiB as torch would tell of it; sizes in MiB."""

    def card(free: int, *, reserved: int = 0, allocated: int = 0, share: float = 1.0) -> None:
        told = {
            "is_initialized": lambda: True,
            "mem_get_info": lambda: (free * 2**20, 8 * 2**30),
            "memory_reserved": lambda: reserved * 2**20,
            "memory_allocated": lambda: allocated * 2**20,
            "get_per_process_memory_fraction": lambda: share,
        }
        for name, answer in told.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    return card


@pytest.mark.parametrize("error", FOR_WANT_OF_ROOM, ids=lambda error: str(error)[:60])
def test_a_library_that_finds_no_room_ran_out_of_memory(error: Exception, card: Callable[..., None]) -> None:
    """And one that fails on an empty card did not: then no smaller batch would help."""

    def kind() -> str:
        try:
            return type(classify(error)).__name__
        except DeviceLost as lost:
            return type(lost).__name__

    for full in ({"free": 20}, {"free": 600, "reserved": 7000, "allocated": 6900}, {"free": 6000, "share": 0.1}):
        card(**full)
        assert kind() == "OutOfMemory", full
    otherwise = "DeviceLost" if "cublasCreate" in str(error) else "JobFailure"
    for roomy in ({"free": 4000}, {"free": 20, "reserved": 7000, "allocated": 1000}):
        card(**roomy)
        assert kind() == otherwise, roomy


def test_a_device_that_does_not_answer_is_not_full(card: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    card(free=20)

    def mem_get_info() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    with pytest.raises(DeviceLost):
        classify(FOR_WANT_OF_ROOM[-1])


@pytest.mark.parametrize("error", LOST, ids=lambda error: str(error)[:40])
def test_an_error_of_the_device_itself_ends_the_process(error: Exception) -> None:
    """Also no memory, if the device says so and not the allocator: nothing it computes later is to be trusted."""
    with pytest.raises(DeviceLost, match="no longer answers") as caught:
        classify(error)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_a_real_allocator_that_is_asked_for_too_much() -> None:
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        assert type(classify(error)) is OutOfHostMemory
    else:
        raise AssertionError("an exabyte was granted")


def test_other_failures_are_told_as_they_are() -> None:
    failure = classify(ValueError("odd prompt\nmore"))
    assert type(failure) is JobFailure and str(failure) == "ValueError: odd prompt"
    assert str(classify(ZeroDivisionError())) == "ZeroDivisionError: ZeroDivisionError"
    known = BadPixels("black")
    assert classify(known) is known
    assert type(classify(RuntimeError("a shape [2, 3] that does not fit into memory format"))) is JobFailure
