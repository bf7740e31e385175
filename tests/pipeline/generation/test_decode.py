"""From decoded values to pictures: the nearest of 256 levels, to the bit as numpy finds it, and what is no picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.generation.decode import developed
from pipeline.generation.generate import generate_batch
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings


def test_the_vae_of_sdxl_decodes_in_float32_on_apple_too(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers casts it down to the latents' float16 there, just before it decodes, and it would overflow."""
    import torch

    settings, memory = identify(str(tiny("sdxl")))[0], MemorySettings(dtype="float16")
    model = load(settings, memory, "cpu")
    vae = model.pipe.vae
    before = vae.decoder.conv_in.weight.clone()
    request = ImageRequest("a red house", "", 1, 2, 5.0, 64, 64, "Euler", None, settings, memory)
    found = []
    for apple in (False, True):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda apple=apple: apple)
        (image,) = generate_batch(model, [request])
        assert isinstance(image, GeneratedImage), image
        found.append(image.pixels)
        assert vae.dtype == torch.float32 and torch.equal(vae.decoder.conv_in.weight, before)
    np.testing.assert_array_equal(*found)


def test_levels_are_the_nearest_as_numpy_has_them() -> None:
    import torch

    levels = np.arange(256, dtype=np.float64)
    edges = np.concatenate([levels, levels[:-1] + 0.5])  # exactly between two levels as well, and right beside that
    values = np.float32(edges / 255)
    values = np.concatenate([values, np.nextafter(values, np.float32(0)), np.nextafter(values, np.float32(1))])
    noise = np.random.default_rng(0).random(3 * 40 * 24 - len(values), dtype=np.float32)
    picture = np.clip(np.concatenate([values, noise]), 0, 1).reshape(40, 24, 3)
    as_latents_come = torch.from_numpy(picture.transpose(2, 0, 1).copy()).permute(1, 2, 0)  # not contiguous
    found = developed(torch.stack([torch.from_numpy(picture), as_latents_come]))
    expected = (picture * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(found.pixels, [expected, expected])
    assert found.pixels.dtype == np.uint8 and found.pixels.flags.c_contiguous and len(np.unique(expected)) == 256
    assert (found.faults, found.flags) == ([None, None], None)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), "the model returned NaN"),
        (float("inf"), "the model returned NaN"),
        (float("-inf"), "the model returned NaN"),
        (0.9 / 255, "the model returned an all-black picture"),
        (float(np.float32(1 / 255)), None),
        (1.0, None),
    ],
)
def test_one_value_decides_about_its_picture_alone(value: float, fault: str | None) -> None:
    import torch

    pictures = torch.zeros(3, 8, 8, 3)
    pictures[0] = pictures[2] = 0.5
    pictures[1, 3, 5, 1] = value
    first, second, third = developed(pictures, [False, True, False]).faults
    assert first is None and third is None
    assert second is None if fault is None else (second or "").startswith(fault)
