"""Cards that the installed torch has no code for."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import RunStopped
from pipeline.system.architectures import check_served, serves


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("sm_75", (7, 5), True),
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_75", (6, 1), False),
        ("sm_90", (12, 0), False),
        ("sm_120", (12, 0), True),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("compute_80", (12, 0), True),
        ("compute_90", (8, 9), False),
        ("gfx942", (9, 4), False),
    ],
)
def test_code_runs_on_its_generation(architecture: str, capability: tuple[int, int], runs: bool) -> None:
    assert serves(architecture, capability) is runs


@pytest.fixture
def pascal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "sm_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P40")


def test_a_card_without_code_is_told_in_one_line_before_anything_is_loaded(pascal: None) -> None:
    from pipeline.loading.load import load
    from pipeline.registry.model_settings import identify
    from pipeline.request import MemorySettings

    with pytest.raises(
        RunStopped, match=r"Tesla P40 has compute capability 6\.1, .* serves sm_75, .*engine.device=cpu"
    ) as caught:
        load(identify("demo")[0], MemorySettings(), "cuda")
    assert "\n" not in str(caught.value)


def test_others_pass(pascal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    check_served("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    check_served("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    check_served("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    check_served("cuda")
