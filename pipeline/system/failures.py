"""Classifies exceptions of a model: what they mean for the image and for the process."""

from __future__ import annotations

from pipeline.errors import DeviceLost, JobFailure, OutOfHostMemory, OutOfMemory

# Errors after which a CUDA context gives errors, or wrong pictures, for ever.
_LOST = (
    "CUDA error",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "cudaErrorLaunchFailure",
)

# No memory, said by whoever asked for some: torch's allocators (of the device, Apple), libraries' workspaces.
_DEVICE_MEMORY = (
    "CUDA out of memory",
    "HIP out of memory",
    "MPS backend out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "Invalid buffer size",
)

# The same of the machine: torch's allocator on Linux and Windows, the system, a library's workspace.
_HOST_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
)

# What libraries say when there is no room for their handle or their workspace, and also for other reasons: the free
# memory tells which it was.
_FOR_WANT_OF_ROOM = (
    "was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",
)

_FULL = 1 / 8
"""Of a device's memory, what is left of one that counts as full: workspaces may be as large as what they work on."""

# The same words from outside an allocator: a kernel failed for want of memory, and the context is not to be trusted.
_LOST_FOR_MEMORY = ("CUDA error: out of memory",)


def classify(error: Exception) -> JobFailure:
    """The failure for an exception; raises `DeviceLost` if no retry in this process can help."""
    if isinstance(error, JobFailure):
        return error
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if _is_out_of_memory(error):
        of_host = isinstance(error, MemoryError) or any(mark in str(error) for mark in _HOST_MEMORY)
        kind = OutOfHostMemory if of_host else OutOfMemory
        return kind(f"out of memory: {text}; try memory=aggressive, batch_size=1 or a smaller size")
    if any(mark in str(error) for mark in (*_LOST, *_LOST_FOR_MEMORY)):
        raise DeviceLost(f"the device no longer answers: {text}") from error
    return JobFailure(f"{type(error).__name__}: {text}")


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    if any(mark in text for mark in _LOST_FOR_MEMORY):
        return False
    if any(mark in text for mark in _FOR_WANT_OF_ROOM) and _is_device_full():
        return True
    return any(mark in text for mark in (*_DEVICE_MEMORY, *_HOST_MEMORY)) or (
        # Any other way of saying it, by whichever library, as long as it is not an error of the device itself.
        "out of memory" in text and not any(mark in text for mark in _LOST)
    )


def _is_device_full() -> bool:
    """Whether this process can hardly have more of the CUDA device that it uses than it has."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # the device does not answer
        return False
    allocated = torch.cuda.memory_allocated()
    allowed = int(torch.cuda.get_per_process_memory_fraction() * total) - allocated
    return bool(min(free + torch.cuda.memory_reserved() - allocated, allowed) < _FULL * total)
