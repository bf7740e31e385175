"""A model and its adapters by name and by hash: found through the registry, made, recorded, made again elsewhere."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from jobs.archive.reproduce import EXIT_EQUAL, reproduce
from jobs.running.main import main
from pipeline.errors import ModelError
from pipeline.registry.database import Registry
from pipeline.registry.scanning import scan
from pipeline.registry.upkeep import verify


@pytest.mark.slow
def test_models_and_loras_by_name_are_made_recorded_and_found_where_they_were_moved(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import build_tiny_models

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    build_tiny_models.main(tmp_path / "built")
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(tmp_path / "built" / "tiny_sdxl", mine / "checkpoints" / "Small XL")
    shutil.copytree(tmp_path / "built" / "tiny_sdxl" / "vae", mine / "vae" / "soft")
    (mine / "loras").mkdir()
    for name, source in (("Ink Wash_v2", "one"), ("paper", "two")):
        lora = tmp_path / "built" / "loras" / "tiny_sdxl" / f"{source}.safetensors"
        shutil.copyfile(lora, mine / "loras" / f"{name}.safetensors")
    paper = hashlib.sha256((mine / "loras" / "paper.safetensors").read_bytes()).hexdigest()
    config = {
        "prompts": {"lines": ["a red house"]},
        "model": {"source": "small-xl", "vae": "soft"},
        "adapters": {"loras": [{"source": "ink wash v2"}, {"source": f"sha256:{paper[:12]}"}]},
        "memory": {"level": "auto"},
        "sampling": {"steps": 2, "guidance_scale": 3.0, "width": 32, "height": 32},
        "engine": {"device": "cpu", "cpu_threads": 1},
        "output": {"dir": str(out)},
        "quiet": True,
    }
    with Registry() as registry:
        assert scan(registry, mine).refused == []
        assert {one.state for one in verify(registry)} == {"noted"}
    assert main([config], []) == 0
    rows = duckdb.sql(f"select model, loras, path, record_json from read_parquet('{out}/manifest/parts/*.parquet')")
    ((model, loras, path, record),) = rows.fetchall()
    assert (model, loras) == ("Small-XL", ["Ink-Wash_v2", "paper"])
    assert str(tmp_path) not in record and '"soft"' in record

    shutil.rmtree(tmp_path / "built")
    shutil.rmtree(tmp_path / "cache")
    mine.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="darkroom models scan FOLDER"):
        reproduce(out / path, check=True, output_dir=out, model=None)
    with Registry() as registry:
        scan(registry, tmp_path / "moved")
    assert reproduce(out / path, check=True, output_dir=out, model=None) == EXIT_EQUAL
