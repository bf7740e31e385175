"""`python -m benchmarks` measures everything that it promises; how fast is not a test's business."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from families import a_few

from benchmarks import __main__ as program
from benchmarks import gpu
from benchmarks.__main__ import LONG, NAMES
from benchmarks.gpu_ways import Work
from benchmarks.measuring import MISSED, NOT_MEASURED, OK, Row, Scale, peak_rss_bytes, ratio_of_pairs
from benchmarks.report import as_markdown, quantity
from benchmarks.true_size import blueprint, empty_component, write
from pipeline.weights.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent

KEYS = {
    "startup.help", "startup.search", "startup.dry_run",
    "planning.seeds.100000.seconds", "planning.seeds.100000.memory",
    "planning.file.100000.seconds", "planning.file.100000.memory",
    "planning.seeds.1000000.seconds", "planning.seeds.1000000.memory",
    "planning.file.1000000.seconds", "planning.file.1000000.memory",
    "resume.seconds", "resume.dry_run", "resume.command",
    "overhead.main_thread", "overhead.saver", "overhead.end",
    "batches.one.whole", "forwards.32", "forwards.8",
    "batches.singly.generation", "batches.singly.whole", "batches.batched.generation", "batches.batched.whole",
    "batches.per_image",
    "sweeps.models.loads", "sweeps.models.encodes", "sweeps.models.generation", "sweeps.models.whole",
    "sweeps.loras.loads",
    "sweeps.loras.switching.generation", "sweeps.loras.switching.whole",
    "sweeps.loras.reloading.generation", "sweeps.loras.reloading.whole",
    "models.loads", "models.memory.kept", "models.memory.reloaded", "models.switch",
    "memory_levels.plain", "memory_levels.none", "memory_levels.ultra", "memory_levels.budget",
    "estimates.plain", "estimates.streamed", "estimates.worst",
    "searching.model_steps", "searching.words", "searching.rare_word", "registry.list",
    "gallery.first_page", "gallery.facet", "gallery.word", "gallery.deep_page",
    *(f"selection.labelled.{part}.{group}.{side}" for part in ("tuning", "held_out") for side in ("missed", "wrong")
      for group in ("medium", "style", "subject", "camera_and_light", "count_and_text", "negated")),
    "selection.geneval.counts", "selection.geneval.colours", "selection.analysing",
    "selection.choice.misfits", "selection.choice.lies", "selection.choice.missed", "selection.choice.seconds",
    "selection.learning_rules", "selection.learning_single", "selection.start",
    "journal.append", "journal.against_disk", "journal.processes",
    "gpu.images", "gpu.true_size",
}  # fmt: skip
GPU_KEYS = {key for key in KEYS if key.startswith("gpu.")}


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.campaign
def test_quick_run_has_every_row_in_the_table_the_json_and_the_markdown(tmp_path: Path) -> None:
    done = benchmarks(*NAMES, "--quick", "--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md"))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert {row["key"] for row in document["rows"]} == KEYS
    assert {row["key"] for row in document["rows"] if row["measured"] is None} <= GPU_KEYS
    table = (tmp_path / "b.md").read_text(encoding="utf-8")
    for row in document["rows"]:
        assert row["what"] in done.stdout
        assert row["what"] in table
    assert document["quick"] is True
    assert {"cpu", "cores", "ram_bytes", "gpu", "versions"} <= set(document["machine"])
    assert str(Path.home()) not in json.dumps(document) and str(ROOT) not in json.dumps(document)
    assert not list((ROOT / "outputs" / "benchmarks").glob(".work-*"))


@pytest.mark.slow
def test_one_is_quickly_measured_and_written_as_json(tmp_path: Path) -> None:
    """The parts that break are those that all share; `make campaign` runs all of them."""
    done = benchmarks("registry", "--quick", "--json", str(tmp_path / "b.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["rows"]
    assert {row["key"] for row in rows} == {key for key in KEYS if key.startswith("registry.")}
    assert all(math.isfinite(row["measured"]) for row in rows), "a difference of so little may be below 0"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], set(NAMES) - set(LONG)), (["--long"], set(NAMES)), (["estimates"], {"estimates"})],
)
def test_what_takes_long_is_measured_when_it_is_asked_for(
    arguments: list[str], expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def note(name: str, _scale: Scale) -> Iterator[Row]:
        measured.append(name)
        return iter(())

    monkeypatch.setenv("XDG_CACHE_HOME", "")  # which `main` sets
    monkeypatch.setattr(program, "_measured", note)
    monkeypatch.setattr(program, "OUTPUT", tmp_path)
    assert program.main(arguments) == 0
    assert set(measured) == expected


def test_the_long_form_repeats_more_often() -> None:
    scales = [Scale(False, Path()), Scale(False, Path(), long=True), Scale(False, Path(), 2, long=True)]
    assert [scale.rounds(1, 3) for scale in scales] == [1, 3, 2]


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    done = benchmarks("startpu")
    assert done.returncode == 2
    assert "startpu" in done.stderr and "startup" in done.stderr


def test_a_part_of_the_gpu_benchmark_is_refused_where_there_is_no_such_part() -> None:
    done = benchmarks("gpu", "--model", "flux", "--card", "10")
    assert done.returncode == 2
    assert "--card" in done.stderr and "24" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd15", "sdxl", "flux", "z_image"])
def test_models_of_true_size_have_the_published_numbers_of_parameters(family: str) -> None:
    plan = blueprint(family)
    for name, published in FAMILIES[family].parameters.items():
        tensors = empty_component(plan, name).state_dict(keep_vars=True).values()
        parameters = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in tensors}.values())
        assert parameters == pytest.approx(published, rel=0.01), name


SMALL = {
    "flux": {
        "transformer": {
            "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
            "axes_dims_rope": (4, 4, 8), "joint_attention_dim": 64,
        },
        "text_encoder_2": {"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    },
    "z_image": {
        "transformer": {
            "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 64,
            "axes_dims": [8, 4, 4],
        },
        "text_encoder": {
            "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 8,
        },
    },
}  # fmt: skip


@pytest.mark.campaign
@pytest.mark.parametrize("family", SMALL)
def test_a_model_drawn_into_shards_makes_pictures(family: str, tmp_path: Path) -> None:
    plan = blueprint(family)
    configs = {name: {**config, **SMALL[family].get(name, {})} for name, config in plan.configs.items()}
    configs["vae"]["block_out_channels"] = (32, 32, 32, 32)
    folder = tmp_path / "model"
    write(replace(plan, configs=configs), folder, shard_bytes=100_000)
    assert len(list(folder.glob("transformer/*-of-*.safetensors"))) > 1
    found = gpu.done(
        "ours", Work(str(folder), str(tmp_path / "images"), 24, 2, 2, gpu.MODELS[family].guidance_scale, 64)
    )
    assert found.get("images") == 2, found
    assert found["incomplete"] is None


@pytest.mark.campaign
@pytest.mark.parametrize("way", a_few(["exact", "expandable", "resident", "model_offload", "leaf"], ["resident"]))
def test_ways_of_the_gpu_benchmark_make_every_image(way: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    found = gpu.done(way, Work(str(tiny("sd15")), str(tmp_path / "images"), 8, 2, 2, 5.0, 32))
    assert found.get("images") == 2, found
    assert found["seconds"] > 0 and found["incomplete"] is None
    assert len(list((tmp_path / "images").rglob("*.png"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "settings"), [("expandable", "expandable_segments:True"), ("ours", "max_split_size_mb:64")]
)
@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_allocator_is_set_by_the_user_or_by_the_way(way: str, settings: str, name: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from benchmarks import gpu_ways\n"
        "from pipeline.loading import offline\n"
        "offline.import_libraries = lambda: None\n"
        "assert 'torch' not in sys.modules\n"
        "def ours(way, work):\n"
        "    import torch\n"
        "    return {'settings': torch._C._accelerator_getAllocatorSettings()}\n"
        "gpu_ways._ours = ours\n"
        "work = gpu_ways.Work('', sys.argv[2], 8, 1, 1, 0.0, 32)\n"
        "print(gpu_ways.measured(sys.argv[1], work)['settings'])\n"
    )
    others = {key: value for key, value in os.environ.items() if not key.endswith("ALLOC_CONF")}
    variables = {**others, name: "max_split_size_mb:64"}
    arguments = [sys.executable, "-c", code, way, str(tmp_path / "images")]
    done = subprocess.run(arguments, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == settings


@pytest.mark.campaign
def test_a_way_that_breaks_off_costs_only_its_own_row(tmp_path: Path) -> None:
    found = gpu.done("resident", Work(str(tmp_path / "nothing"), str(tmp_path / "images"), 8, 2, 2, 5.0, 32))
    shown = gpu.row("k", "w", found, 2, "a card")
    assert shown.verdict == NOT_MEASURED
    assert "nothing" in shown.note and shown.note.endswith("; a card")


def test_a_row_of_the_gpu_benchmark_says_what_was_not_finished() -> None:
    found = {"images": 1.5, "seconds": 30.0, "load_s": 2.0, "reserved_bytes": 2**30, "allocated_bytes": 2**29}
    shown = gpu.row("k", "w", {**found, "host_bytes": 2**31, "incomplete": "stopped after 1.50 images"}, 28, "a card")
    assert shown.measured == 180
    for text in ("20.00 s per image of 28 steps", "reserved 1.00 GB", "host 2.0 GB", "stopped after 1.50 images"):
        assert text in shown.note


def test_a_row_knows_whether_its_promise_is_kept() -> None:
    assert Row("k", "w", 2.0, "s", 4.0).verdict == OK
    assert Row("k", "w", 5.0, "s", 4.0).verdict == MISSED
    assert Row("k", "w", 5.0, "s").verdict == ""
    assert Row("k", "w", None, "s", 4.0, "no GPU here").verdict == NOT_MEASURED
    assert Row("k", "w", 2.0, "s", 4.0).ratio == 0.5


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was ten times slower in the second round; that must not show.
    assert ratio_of_pairs([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 0.5


def test_quantities_are_short() -> None:
    assert quantity(0.04213, "s") == "0.0421 s"
    assert quantity(1234567.0, "B") == "1,234,567 B"
    assert quantity(2.0, "") == "2"
    assert quantity(None, "s") == "-"


def test_peak_memory_is_this_process_own() -> None:
    assert 10**6 < peak_rss_bytes() < 10**11


def test_markdown_cells_cannot_break_the_table() -> None:
    from datetime import UTC, datetime

    facts = {"cpu": "c", "cores": 2, "ram_bytes": 2**30, "gpu": None, "load_before": 0.0, "versions": {"python": "3"}}
    text = as_markdown([Row("k", "a | b", 1.0, "s")], facts, datetime.now(UTC), quick=False)
    assert "| a / b | 1 s |" in text
