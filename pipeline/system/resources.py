"""The load of the machine's processors, memory and GPUs: read once, or sampled while something runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from pipeline.system.device import nvml

CPU_INTERVAL_S = 0.1
"""Over which the use of the processors is measured where nothing was measured before."""

SETTLE_S = 2.0
"""After which a monitor takes its first sample: what ends before has no use for it, and pays nothing."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One NVIDIA GPU now; unknown values are None. `utilization_percent` is the share of time in which it computed.

    `temperature_c` is in degrees Celsius, `power_w` in watts.
    """

    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """The machine now. `cpu_percent` is of all processors together; `rss_bytes` the resident memory of one process.

    RAM is the machine's; `ram_available_bytes` can be had without swapping. `rss_bytes` is None for a process that is
    gone.
    """

    cpu_percent: float
    ram_total_bytes: int
    ram_used_bytes: int
    ram_available_bytes: int
    rss_bytes: int | None
    gpus: tuple[GpuUse, ...] = ()


def read_resources(pid: int | None = None) -> Resources:
    """The machine's load now, and the memory of one process, by default this one. Takes a tenth of a second."""
    return _sample(pid, CPU_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """Mean or peak of samples, in the units of `Resources`; of several GPUs the one with the largest value."""

    cpu_percent: float
    ram_used_bytes: int
    rss_bytes: int | None
    gpu_percent: float | None
    gpu_memory_used_bytes: int | None


class ResourceMonitor:
    """Samples `read_resources` every `interval_s` seconds on its own thread within a `with` block.

    `pid` returns the process whose memory is sampled; without it, or where it returns None, that is this one. `history`
    has the last samples; `mean` and `peak` are of all of them, also of those that are no longer kept. `on_sample` is
    called on the thread.
    """

    def __init__(
        self,
        interval_s: float = 10.0,
        *,
        kept: int = 1_000,
        pid: Callable[[], int | None] | None = None,
        on_sample: Callable[[Resources], None] | None = None,
    ) -> None:
        if interval_s <= 0:
            raise ValueError(f"interval_s: {interval_s} is no time to wait; expected seconds above 0")
        self._interval_s, self._pid, self._on_sample = interval_s, pid, on_sample
        self._history: deque[Resources] = deque(maxlen=kept)
        self._count = 0
        self._mean: ResourceStatistics | None = None
        self._peak: ResourceStatistics | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    @property
    def history(self) -> tuple[Resources, ...]:
        """The last samples, oldest first."""
        with self._lock:
            return tuple(self._history)

    @property
    def mean(self) -> ResourceStatistics | None:
        """Means; None before the first sample."""
        return self._mean

    @property
    def peak(self) -> ResourceStatistics | None:
        """The largest values; None before the first sample."""
        return self._peak

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._interval_s + 1)

    def _run(self) -> None:
        wait_s = min(SETTLE_S, self._interval_s)
        while not self._ended.wait(wait_s):
            wait_s = self._interval_s
            try:
                sample = _sample(self._pid() if self._pid else None, None if self._count else CPU_INTERVAL_S)
            except Exception:  # of a driver or a system that no longer answers; what runs has no part in it
                continue
            self._take(sample)
            if self._on_sample:
                self._on_sample(sample)

    def _take(self, sample: Resources) -> None:
        one = _statistics(sample)
        with self._lock:
            self._history.append(sample)
            self._count += 1
            count = self._count
            self._mean = one if self._mean is None else _combined(self._mean, one, lambda a, b: a + (b - a) / count)
            self._peak = one if self._peak is None else _combined(self._peak, one, max)


def _sample(pid: int | None, cpu_interval_s: float | None) -> Resources:
    import psutil

    cpu_percent, ram = psutil.cpu_percent(cpu_interval_s), psutil.virtual_memory()
    try:
        rss: int | None = int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        rss = None
    used = int(ram.total - ram.available)
    return Resources(float(cpu_percent), int(ram.total), used, int(ram.available), rss, tuple(_gpus()))


def _gpus() -> Iterable[GpuUse]:
    import pynvml

    try:
        with nvml():
            return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return ()


def _gpu(pynvml: Any, index: int) -> GpuUse:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)

    def said(ask: Callable[[], Any]) -> float | None:
        try:
            return float(ask())
        except pynvml.NVMLError:  # many cards do not say all of it
            return None

    milliwatts = said(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    return GpuUse(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total_bytes=int(memory.total),
        memory_used_bytes=int(memory.used),
        utilization_percent=said(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        temperature_c=said(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        power_w=None if milliwatts is None else milliwatts / 1000,
    )


def _statistics(sample: Resources) -> ResourceStatistics:
    busy = [gpu.utilization_percent for gpu in sample.gpus if gpu.utilization_percent is not None]
    return ResourceStatistics(
        cpu_percent=sample.cpu_percent,
        ram_used_bytes=sample.ram_used_bytes,
        rss_bytes=sample.rss_bytes,
        gpu_percent=max(busy, default=None),
        gpu_memory_used_bytes=max((gpu.memory_used_bytes for gpu in sample.gpus), default=None),
    )


def _combined(
    one: ResourceStatistics, other: ResourceStatistics, combine: Callable[[float, float], float]
) -> ResourceStatistics:
    def both(a: float | None, b: float | None) -> float | None:
        return b if a is None else a if b is None else combine(a, b)

    def whole(a: int | None, b: int | None) -> int | None:
        value = both(a, b)
        return None if value is None else round(value)

    return ResourceStatistics(
        cpu_percent=combine(one.cpu_percent, other.cpu_percent),
        ram_used_bytes=round(combine(one.ram_used_bytes, other.ram_used_bytes)),
        rss_bytes=whole(one.rss_bytes, other.rss_bytes),
        gpu_percent=both(one.gpu_percent, other.gpu_percent),
        gpu_memory_used_bytes=whole(one.gpu_memory_used_bytes, other.gpu_memory_used_bytes),
    )
