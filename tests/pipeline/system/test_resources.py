"""What the machine is doing, once and sampled, with and without GPUs, and with cards that say only half of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from pipeline.system import resources as module
from pipeline.system.resources import GpuUse, ResourceMonitor, Resources, read_resources

SAMPLE = Resources(50.0, 8 * 2**30, 2**30, 7 * 2**30, 2**20, (GpuUse(0, "card", 2**30, 2**20, 40.0, 60.0, 100.0),))


def no_driver() -> None:
    raise pynvml.NVMLError_LibraryNotFound


@pytest.fixture(autouse=True)
def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)


def test_values_are_those_of_the_system() -> None:
    found = read_resources()
    assert found.ram_total_bytes == psutil.virtual_memory().total
    assert found.ram_used_bytes + found.ram_available_bytes == found.ram_total_bytes
    assert found.rss_bytes is not None and 2**20 < found.rss_bytes < found.ram_total_bytes
    assert 0 <= found.cpu_percent <= 100 and found.gpus == ()


def test_another_process_is_looked_at_until_it_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = read_resources(child.pid).rss_bytes
    child.communicate(b"\n")
    assert found is not None and found != read_resources().rss_bytes
    assert read_resources(child.pid).rss_bytes is None


def test_a_card_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> Any:
        raise pynvml.NVMLError_NotSupported

    answers: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: "NVIDIA T4",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=16 * 2**30, used=2**30),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=93),
        "nvmlDeviceGetTemperature": lambda *_: 61,
        "nvmlDeviceGetPowerUsage": unsupported,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert read_resources().gpus == (GpuUse(0, "NVIDIA T4", 16 * 2**30, 2**30, 93.0, 61.0, None),)


def test_monitor_keeps_the_last_samples_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([10.0, 20.0, 60.0])
    seen: list[Resources] = []

    def sample(*_: object) -> Resources:
        value = next(values)  # the fourth sample fails, as a driver may
        return replace(SAMPLE, cpu_percent=value, rss_bytes=None if value == 20 else int(value))

    monkeypatch.setattr(module, "_sample", sample)
    with ResourceMonitor(0.01, kept=2, on_sample=seen.append) as monitor:
        assert monitor.mean is None or len(monitor.history) > 0
        deadline = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [one.cpu_percent for one in seen] == [10, 20, 60]
    assert [one.cpu_percent for one in monitor.history] == [20, 60]
    assert monitor.mean is not None and monitor.peak is not None
    assert (monitor.mean.cpu_percent, monitor.peak.cpu_percent, monitor.peak.rss_bytes) == (30, 60, 60)
    assert (monitor.peak.gpu_percent, monitor.peak.gpu_memory_used_bytes) == (40.0, 2**20)


def test_what_is_over_at_once_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_sample", lambda *_: pytest.fail("no sample was due"))
    began = time.monotonic()
    with ResourceMonitor(60) as monitor:
        pass
    assert time.monotonic() - began < 1 and monitor.history == () and monitor.peak is None


def test_an_interval_is_a_time() -> None:
    with pytest.raises(ValueError, match="interval_s: 0 is no time"):
        ResourceMonitor(0)


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, pipeline.system.resources; print(*({'psutil', 'pynvml', 'torch'} & set(sys.modules)))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert said.stdout.split() == []
