"""The notebook of the examples runs from its first cell to its last, and shows its pictures."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "pictures.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""
"""In a process of its own: warnings of Jupyter's packages are not ours to answer for."""


@pytest.mark.slow
def test_the_notebook_shows_pictures_and_finds_them(tmp_path: Path) -> None:
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package)
    executed = tmp_path / "executed.ipynb"
    subprocess.run([sys.executable, "-c", EXECUTE, NOTEBOOK, executed], cwd=tmp_path, check=True, timeout=400)
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    one, many, found, counted, _ = (
        [output for output in cell["outputs"] if output.get("name") != "stderr"]  # warnings, of tqdm among others
        for cell in cells
        if cell["cell_type"] == "code"
    )
    assert [size_of(output) for output in one] == [(64, 64)]
    assert [size_of(output) for output in many] == [(64, 64)] * 4
    assert "an-orange-boat" in "".join(found[0]["text"])
    assert "".join(counted[0]["data"]["text/plain"]).count("2)") == 2
    assert len(list(tmp_path.glob("outputs/*.png"))) == 4


def size_of(output: dict[str, Any]) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).size


def test_no_output_is_kept_in_the_notebook() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
