"""The versions of images as a constraints file that pip takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recorded_images import record_of

from pipeline.metadata.encoding import encode_image
from pipeline.metadata.metadata_settings import MetadataSettings

Run = Callable[..., tuple[int, str, str]]


def put(folder: Path, n: int, versions: dict[str, str]) -> Path:
    pixels = np.zeros((16, 16, 3), np.uint8)
    record = record_of(n, pixels, MetadataSettings())
    runtime = record.runtime.model_copy(update={"versions": versions})
    path = folder / f"{n}.png"
    path.write_bytes(encode_image(pixels, record.model_copy(update={"runtime": runtime}), MetadataSettings()).data)
    return path


def test_pip_reads_what_is_printed(tmp_path: Path, darkroom: Run) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    versions = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "python": "3.11.7", "cuda": "12.8"}
    image = put(tmp_path, 1, versions)
    code, out, err = darkroom("show", image, "--constraints", "--output-dir", tmp_path)
    assert (code, err) == (0, "")
    said = [requirements.Requirement(line.partition(" #")[0]) for line in out.splitlines() if not line.startswith("#")]
    assert [str(one) for one in said] == ["darkroom==0.1.0", "numpy==2.4.6", "torch==2.13.0"]
    assert "# python 3.11.7" in out and "# cuda 12.8" in out and "the build cpu" in out


def test_two_images_of_other_versions_have_no_common_file(tmp_path: Path, darkroom: Run) -> None:
    images = [put(tmp_path, n, {"torch": version}) for n, version in enumerate(("2.12.0", "2.13.0"))]
    code, out, err = darkroom("show", *images, "--constraints", "--output-dir", tmp_path)
    assert (code, out) == (2, "") and "1.png: was made with torch 2.13.0" in err and "0.png with 2.12.0" in err
    assert darkroom("show", images[0], images[0], "--constraints", "--output-dir", tmp_path)[0] == 0


@pytest.mark.parametrize("name", ["-r evil.txt", "torch\n--index-url x", "x; y", "https://evil"])
def test_a_stranger_s_record_says_nothing_to_pip(name: str, tmp_path: Path, darkroom: Run) -> None:
    image = put(tmp_path, 1, {name: "1.0"})
    code, out, err = darkroom("show", image, "--constraints", "--output-dir", tmp_path)
    assert (code, out) == (2, "") and "which is no package and version" in err
