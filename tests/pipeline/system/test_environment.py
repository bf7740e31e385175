"""What is recorded of the environment that pixels depend on (the GPU is faked)."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest
import torch

from pipeline.metadata.record import Runtime
from pipeline.system.environment import runtime_facts

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def facts(device: str, **speed: Any) -> Runtime:
    given = {"attention_backend": "native", "channels_last": False, "compile": "no", **speed}
    return Runtime.model_validate(runtime_facts(torch.device(device), given))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setenv(WORKSPACE, ":4096:8")


def test_on_a_processor_nothing_of_a_gpu_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    found = facts("cpu")
    assert found.deterministic and found.cublas_workspace is None and found.attention_kernels is None


def test_kernels_of_attention_and_the_workspace_are_recorded(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert facts("cuda").cublas_workspace == ":4096:8"
    assert facts("cuda").attention_kernels == "flash, mem_efficient, cudnn, math"
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: False)
    assert facts("cuda").attention_kernels == "flash, mem_efficient, math"
    assert facts("cuda", attention_backend="sage").attention_kernels is None


@pytest.mark.parametrize(
    ("value", "recorded", "deterministic"),
    [(":16:8", ":16:8", True), (":4096:2:16:8", ":4096:2:16:8", False), ("", None, False), ("/home/ann", None, False)],
)
def test_only_a_workspace_of_its_form_is_recorded_and_two_are_deterministic(
    value: str, recorded: str | None, deterministic: bool, card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, value)
    assert (facts("cuda").cublas_workspace, facts("cuda").deterministic) == (recorded, deterministic)


def test_packages_that_bring_kernels_count_where_these_run(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"sageattention": "2.2.0", "triton": "3.7.0"}

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert not there.keys() & facts("cpu").versions.keys()
    assert facts("cpu", attention_backend="sage").versions["sageattention"] == "2.2.0"
    assert facts("cpu", compile="blocks").versions["triton"] == "3.7.0"
    assert "xformers" not in facts("cpu", attention_backend="xformers").versions
