"""What can be on together: every forbidden combination has its line, everything else passes."""

from __future__ import annotations

import sys
from itertools import combinations

import pytest

from pipeline.memory.planning import techniques
from pipeline.memory.planning.techniques import QUANTIZATIONS, STREAMING, TECHNIQUES, conflicts, installed, ordered

OFFLOADS = ("model_offload", *STREAMING)
FORBIDDEN = [
    *combinations(OFFLOADS, 2),
    *combinations(QUANTIZATIONS["denoiser"], 2),
    *combinations(QUANTIZATIONS["encoder"], 2),
    ("disk_offload", "model_offload"),
    ("disk_offload", "resident_blocks"),
    *(("disk_offload", name) for name in ("denoiser_int8", "denoiser_float8", "encoder_int8", "encoder_float8")),
    *((name, other) for name in ("denoiser_int4", "encoder_int4") for other in STREAMING),
]
"""What diffusers' composition table refuses, and what is pointless or was never seen to work."""

LOSSY = {
    *("denoiser_int8", "denoiser_float8", "denoiser_int4", "encoder_int8", "encoder_float8", "encoder_int4"),
    *("fp8_storage", "vae_tiling", "tiny_vae"),
}


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(techniques, "installed", lambda name: True)


def test_the_vocabulary_and_what_changes_pixels() -> None:
    assert {name for name, technique in TECHNIQUES.items() if technique.lossy} == LOSSY
    assert len(TECHNIQUES) == 18 and all(name == technique.name for name, technique in TECHNIQUES.items())
    assert len({technique.label for technique in TECHNIQUES.values()}) == len(TECHNIQUES)


def test_names_come_once_in_the_order_in_which_they_are_applied() -> None:
    mixed = ["resident_blocks", "vae_slicing", "denoiser_int8", "vae_slicing", "staged"]
    assert ordered(mixed) == ("denoiser_int8", "staged", "vae_slicing", "resident_blocks")


@pytest.mark.parametrize("pair", FORBIDDEN, ids=" + ".join)
def test_forbidden_pairs_are_named_in_one_line(pair: tuple[str, str]) -> None:
    needed = {"leaf_offload"} if "disk_offload" in pair and not {*pair} & {*OFFLOADS} else set()
    (line,) = conflicts({*pair, *needed})
    assert pair[0] in line and pair[1] in line and "\n" not in line


@pytest.mark.parametrize(
    "together",
    [
        ("denoiser_int8", "encoder_int8", "staged", "drop_encoders", "vae_slicing", "vae_tiling", "resident_blocks"),
        ("fp8_storage", "encoder_int8", "block_offload"),
        ("leaf_offload", "disk_offload", "fp8_storage"),
        ("denoiser_int4", "encoder_int4", "staged", "model_offload"),
        ("denoiser_int8", "leaf_offload"),
    ],
    ids=" + ".join,
)
def test_what_composes_is_let_through(together: tuple[str, ...]) -> None:
    assert conflicts(together) == []


def test_disk_offload_alone_says_what_is_missing() -> None:
    (line,) = conflicts(["disk_offload"])
    assert "leaf_offload" in line


def test_exact_quality_names_each_technique_that_changes_pixels() -> None:
    lines = conflicts(["vae_tiling", "vae_slicing", "denoiser_int8", "staged"], exact=True)
    assert len(lines) == 2 and all("memory.quality=exact" in line for line in lines)
    assert lines[0].startswith("denoiser_int8 ") and lines[1].startswith("vae_tiling ")


def test_a_tiny_vae_needs_weights() -> None:
    (line,) = conflicts(["tiny_vae"])
    assert "memory.tiny_vae=FOLDER" in line
    assert conflicts(["tiny_vae"], tiny_vae=True) == []


@pytest.mark.parametrize(
    ("name", "device"), [("denoiser_int4", "cpu"), ("encoder_int4", "mps"), ("leaf_offload", "mps")]
)
def test_techniques_of_other_devices_are_refused(name: str, device: str) -> None:
    (line,) = conflicts([name], device)
    assert line.startswith(f"{name} works on cuda") and f"not on {device}" in line


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(techniques, "installed", lambda name: TECHNIQUES[name].needs is None)
    assert not conflicts(["encoder_int8", "staged"])
    (line,) = conflicts(["denoiser_int4"])
    assert "bitsandbytes" in line and "pip install 'darkroom[bitsandbytes]'" in line


def test_packages_are_looked_for_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = "bitsandbytes" in sys.modules
    installed.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        assert not installed("denoiser_int4") and not installed("encoder_int4")
        assert installed("denoiser_int8") and installed("staged")
    finally:
        installed.cache_clear()
    assert ("bitsandbytes" in sys.modules) is before
