"""What memory a machine says it has: a container's limits, and what NVIDIA's driver reports (the driver is faked)."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.system import device as devices
from pipeline.system.device import Device, cuda_variables, device_memory, find_device, gpus, host_memory

GIB = 2**30


class FakeNvml:
    """Two cards as the driver would report them."""

    NVMLError = type("NVMLError", (Exception,), {})
    cards = (("Tiny 8", (8, 6), 8 * GIB, 7 * GIB), ("Big 80", (9, 0), 80 * GIB, 79 * GIB))
    there = True

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.there:
            raise self.NVMLError

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return {"GPU-tiny": 0, "GPU-big": 1, "MIG-of-big": 1}[uuid]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return ("GPU-tiny", "GPU-big")[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.cards[handle][0]

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> list[int]:  # noqa: N802
        return [*self.cards[handle][1]]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=self.cards[handle][2], free=self.cards[handle][3])


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_a_cpu_is_its_host() -> None:
    found = device_memory(Device("cpu"))
    assert (found.total_bytes, found.free_bytes) == (found.host_total_bytes, found.host_free_bytes)
    assert 0 < found.free_bytes <= found.total_bytes


@pytest.mark.parametrize(
    ("visible", "card"),
    [(None, 1), ("0", 0), ("1", 1), ("1,0", 1), ("GPU-big", 1), ("GPU-t", 0), ("MIG-of-big", 1)],
)
def test_the_card_is_the_first_visible_one_or_that_of_the_most_memory(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, visible: str | None, card: int
) -> None:
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    device = find_device("cuda")
    assert device == Device("cuda", nvml.cards[card][0], nvml.cards[card][1])
    found = device_memory(device)
    assert (found.total_bytes, found.free_bytes) == nvml.cards[card][2:]
    assert found.host_total_bytes == host_memory()[0]


def test_cuda_counts_as_the_driver_does_and_sees_what_was_planned_for(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_bus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert cuda_variables() == {**by_bus, "CUDA_VISIBLE_DEVICES": "GPU-big"}
    monkeypatch.setattr(nvml, "cards", nvml.cards[:1])
    assert cuda_variables() == by_bus, "there is no choice"
    for visible in ("1", "GPU-big", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert cuda_variables() == by_bus, "the user has chosen"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    nvml.there = False
    assert cuda_variables() == by_bus


def test_all_cards_are_listed_also_for_a_torch_that_cannot_use_them(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert find_device().kind != "cuda"
    assert [(gpu.index, gpu.name, gpu.capability, gpu.driver) for gpu in gpus()] == [
        (0, "Tiny 8", (8, 6), "570.1"),
        (1, "Big 80", (9, 0), "570.1"),
    ]


def test_without_a_driver_there_are_no_cards(nvml: FakeNvml) -> None:
    nvml.there = False
    assert gpus() == [] and find_device().kind != "cuda"


def limits(tmp_path: Path, membership: str, files: dict[str, str]) -> list[tuple[int, int]]:
    for name, text in {"proc": membership, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(devices._cgroup_limits(tmp_path / "cgroup", tmp_path / "proc"))


def test_limits_of_version_2_count_at_every_level_and_cache_is_not_used(tmp_path: Path) -> None:
    files = {
        "cgroup/memory.max": "max",
        "cgroup/memory.current": "99",
        "cgroup/a/memory.max": "4000\n",
        "cgroup/a/memory.current": "1500\n",
        "cgroup/a/memory.stat": "anon 500\ninactive_file 900\n",
        "cgroup/a/b/memory.max": "9000",
        "cgroup/a/b/memory.current": "100",
    }
    assert limits(tmp_path, "0::/a/b\n", files) == [(9000, 100), (4000, 600)]


def test_limits_of_version_1_are_those_of_its_memory_controller(tmp_path: Path) -> None:
    files = {
        "cgroup/memory/memory.limit_in_bytes": "5000",
        "cgroup/memory/memory.usage_in_bytes": "2000",
        "cgroup/memory/memory.stat": "total_inactive_file 500",
        "cgroup/memory.max": "1",
        "cgroup/memory.current": "1",
    }
    assert limits(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/docker/gone\n", files) == [(5000, 1500)]


def test_a_containers_limit_is_what_the_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cgroup_limits", lambda *_: [(3 * GIB, GIB), (2 * GIB, 3 * GIB)])
    assert host_memory() == (2 * GIB, 0)
