"""The environment that the libraries are imported in."""

from __future__ import annotations

import os

import pytest

from pipeline.loading import offline


@pytest.mark.parametrize(("theirs", "becomes"), [(None, ":4096:8"), (":16:8", ":16:8"), (":0:0", ":0:0")])
def test_a_users_workspace_of_cublas_stays(theirs: str | None, becomes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, theirs or "")
    if theirs is None:
        monkeypatch.delenv(name)
    offline.import_libraries()
    assert os.environ[name] == becomes


def test_the_card_that_was_planned_for_is_the_one_that_cuda_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-big"}
    monkeypatch.setattr(offline, "cuda_variables", lambda: variables)
    for name in variables:
        monkeypatch.setenv(name, "")
    offline.import_libraries()
    assert {name: os.environ[name] for name in variables} == variables
