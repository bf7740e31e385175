"""What an exception from the depths of a model means for the image and for the process."""

from __future__ import annotations

from pipeline.errors import DeviceLost, JobFailure, OutOfMemory

# Errors after which a CUDA context gives errors, or wrong pictures, for ever.
_LOST = (
    "CUDA error",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "cudaErrorLaunchFailure",
)
_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
           "Invalid buffer size")  # fmt: skip


def classify(error: Exception) -> JobFailure:
    """The failure that an exception stands for; raises `DeviceLost` where no retry in this process can help."""
    import torch

    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if isinstance(error, JobFailure):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(mark in str(error) for mark in _MEMORY):
        return OutOfMemory(f"out of memory: {text}; try memory=aggressive, batch_size=1 or a smaller size")
    if any(mark in str(error) for mark in _LOST):
        raise DeviceLost(f"the device no longer answers: {text}") from error
    return JobFailure(f"{type(error).__name__}: {text}")
