"""The environment that the libraries are imported in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.loading import offline

ROOT = Path(__file__).parents[3]


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


READ_BY_TRANSFORMERS = """
import collections, hashlib, os, sys

read, scandir = collections.Counter(), os.scandir

def counted(path="."):
    if isinstance(path, str | os.PathLike) and f"transformers{os.sep}models" in os.fspath(path):
        read[os.path.relpath(path)] += 1
    return scandir(path)

os.scandir = counted
if sys.argv[1] == "ours":
    from pipeline.loading.offline import import_pipelines
    import_pipelines()
else:
    import diffusers
    _ = diffusers.StableDiffusionPipeline
import transformers, transformers.models
finders = [type(one).__module__ for one in sys.meta_path]
names = sorted([*dir(transformers), *dir(transformers.models)])
print(len(read), sum(read.values()), len(names), hashlib.sha256(repr(names).encode()).hexdigest())
print(transformers.CLIPTextModel.__name__, transformers.models.clip.CLIPTextModel is transformers.CLIPTextModel)
assert not any(one.startswith("pipeline") for one in finders), finders
"""


def test_transformers_reads_its_folders_once_and_offers_the_same() -> None:
    def said(by: str) -> list[str]:
        command = [sys.executable, "-c", READ_BY_TRANSFORMERS, by]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()

    ours, plain = said("ours"), said("plain")
    folders, readings = int(ours[0]), int(ours[1])
    assert 100 < folders <= readings < 1.1 * folders  # those of models that are used are asked for under two names
    assert ours[2:] == plain[2:]
    assert ours[4:] == ["CLIPTextModel", "True"]
