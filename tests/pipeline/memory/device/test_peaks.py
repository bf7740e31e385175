"""Peaks of a stage, and whether it was denied memory and came out all the same (the GPU is faked)."""

from __future__ import annotations

import pytest
import torch

from pipeline.memory.device.stages import measured


@pytest.mark.parametrize(("before", "after", "refused"), [(0, 0, None), (2, 2, None), (2, 5, 3)])
def test_memory_that_a_stage_did_without_is_counted(
    before: int, after: int, refused: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = {"num_ooms": before}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: dict(stats))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 9)
    with measured(torch.device("cuda")) as peaks:
        stats["num_ooms"] = after
    assert peaks.pop("rss") > 0
    assert peaks == {"allocated": 7, "reserved": 9} | ({} if refused is None else {"refused": refused})


def test_a_processor_has_the_memory_of_the_process_alone() -> None:
    with measured(torch.device("cpu")) as peaks:
        pass
    assert set(peaks) == {"rss"}
