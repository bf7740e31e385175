"""The scripts in `examples/` run as they stand, from a folder of the user's, and show what they promise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from carded_models import scanned, write_carded
from conftest import building
from forked import REPO, Ended, program
from hub_civitai import File, Model, Version
from hub_protocols import Samples, demo_repository
from hub_server import HubServer
from test_docs import section

from jobs import search
from pipeline import read_record

EXAMPLES = REPO / "examples"
WITHOUT_RUN = ("build_tiny_models.py",)
"""Scripts that are tools, with tests of their own elsewhere."""

Run = Callable[..., Ended]


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    """Runs an example in an empty folder, on a machine that knows no models."""

    def run_it(name: str, *arguments: str | Path) -> Ended:
        env = {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "CUDA_VISIBLE_DEVICES": "",
            "XDG_CONFIG_HOME": str(home / "config"),
        }
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        return program(f"examples/{name}", *arguments, cwd=work, folder=tmp_path, env=env)

    return run_it


@pytest.fixture
def models(home: Path, tmp_path: Path, tiny: Callable[[str], Path]) -> Path:
    """A model for photos and one for oil paintings, which this machine knows."""
    return scanned(write_carded(tmp_path / "models", tiny))


@pytest.fixture(scope="session")
def built(built_models: Path) -> Path:
    """What `build_tiny_models.py` writes."""
    import build_tiny_models

    folder = built_models / "examples"
    with building(folder) as place:
        if place:
            build_tiny_models.main(place)
    return folder


def pictures(folder: Path, pattern: str = "*.png") -> list[Path]:
    return sorted((folder / "work" / "outputs").rglob(pattern))


@pytest.mark.slow
def test_quickstart_makes_a_picture_and_says_why(run: Run, tmp_path: Path) -> None:
    ended = run("quickstart.py")
    (picture,) = pictures(tmp_path)
    assert ended.code == 0, ended.err
    path, reasons = ended.out.splitlines()
    assert path == str(picture.relative_to(tmp_path / "work"))
    assert reasons.startswith("demo") and "steps 20" in reasons
    record = read_record(picture)
    assert record.prompt == "a red house in hills at sunset" and record.selection is not None


@pytest.mark.slow
def test_choosing_chooses_asks_and_obeys(run: Run, models: Path, tmp_path: Path) -> None:
    ended = run("choosing.py", "un faro en la tormenta, óleo")
    assert ended.code == 0, ended.err
    auto, assisted = ended.out.split("assisted:")
    assert auto.startswith("auto: canvas (") and "'óleo'" in auto and "before clear-lens" in auto
    assert "made by canvas in 2 steps: outputs/choosing/" in auto and "without canvas: clear-lens" in auto
    assert len(re.findall(r"^model +canvas ", assisted, re.MULTILINE)) == 1  # shown, then changed
    assert len(re.findall(r"^model +clear-lens ", assisted, re.MULTILINE)) == 1
    assert re.search(r"^chosen .*: clear-lens, as you set it", assisted, re.MULTILINE)
    assert ended.out.splitlines()[-1] == "manual: made by demo; chosen: None"
    assert [read_record(path).model.name for path in pictures(tmp_path)] == ["canvas"]


@pytest.mark.slow
def test_memory_shows_levels_exactness_and_the_limit(run: Run) -> None:
    ended = run("memory.py")
    assert ended.code == 0, ended.err
    assert re.search(r"^auto +\d+ MiB predicted, .*: everything resident$", ended.out, re.MULTILINE)
    assert re.search(r"^ultra +\d+ MiB predicted, .*: staged", ended.out, re.MULTILINE)
    assert "with vae_slicing: pixels as before: True" in ended.out
    assert "does not fit into 1.0 MiB" in ended.out


@pytest.mark.slow
def test_adapters_change_the_picture_and_stand_in_its_record(run: Run, built: Path, tmp_path: Path) -> None:
    ended = run("adapters.py", built)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.partition(";")[0].split(maxsplit=0)[0] for line in lines[:5]] == [
        "nothing         txt2img, no adapters",
        "two LoRAs       txt2img, one, second",
        "ControlNet      txt2img, controlnet",
        "IP-Adapter      txt2img, ip0",
        "image-to-image  img2img, no adapters",
    ]
    assert len({line.rpartition(" ")[2] for line in lines[:5]}) == 5
    assert "was made for FLUX.1" in lines[5]
    records = [read_record(path) for path in pictures(tmp_path)]
    assert sorted(len(record.loras) for record in records) == [0, 0, 0, 0, 2]


@pytest.mark.slow
def test_metadata_is_embedded_named_put_beside_and_kept_private(run: Run, tmp_path: Path) -> None:
    ended = run("metadata.py")
    assert ended.code == 0, ended.err
    assert ended.out.count("seed 11, 8 steps, demo, tags ['boat', 'sunset']") == 3
    assert {path.suffix for path in pictures(tmp_path, "*")} >= {".png", ".jpeg", ".webp", ".json"}
    names = dict(re.findall(r"^(standard|descriptive|guid|custom) +(\S+)\.png$", ended.out, re.MULTILINE))
    assert "a-yellow-boat" in names["descriptive"] and "a-yellow-boat" not in names["standard"]
    assert re.fullmatch(r"[0-9a-f-]{36}", names["guid"]) and "custom" in names
    full, minimal, private = ended.out.split("\n\n")[-3:]
    assert "other programs show: a yellow boat" in full
    assert "Steps: 8" in minimal and "boat" not in minimal
    assert private.strip() == "private: record: none; other programs show: nothing"


@pytest.fixture
def samples(tiny: Callable[[str], Path], tmp_path: Path) -> Samples:
    """The embedded model as a repository, and a LoRA for Stable Diffusion."""
    from build_tiny_models import write_lora

    write_lora(tiny("sd15") / "unet", tmp_path / "ink.safetensors", 1, base="sd_v1-5")
    lora = File(1002, (tmp_path / "ink.safetensors").read_bytes(), "ink.safetensors")
    return Samples([demo_repository()], [Model(12, "Ink", [Version(102, [lora])], type="LORA")])


@pytest.mark.slow
def test_downloading_searches_fetches_and_lets_a_run_fetch(run: Run, hub: HubServer, tmp_path: Path) -> None:
    hubs = (f"hub.huggingface_url={hub.url}", f"hub.civitai_url={hub.url}")
    ended = run("downloading.py", "demo", "civitai:102", "hf:tiny/demo", *hubs)
    assert ended.code == 0, ended.err
    found, fetched, planned, made, listed = ended.out.split("\n$ darkroom ")[1:]
    assert "hf:tiny/demo" in found and "civitai:102" in fetched
    assert "to fetch" in planned and "hf:tiny/demo" in planned
    assert "1 requested: 1 made" in made
    assert re.search(r"^demo .*hf:tiny/demo", listed, re.MULTILINE) and "civitai:102" in listed
    (picture,) = pictures(tmp_path)
    assert read_record(picture).steps == 4
    assert run("downloading.py").code == 1


@pytest.mark.slow
def test_learning_moves_the_next_choice(run: Run, models: Path, tmp_path: Path) -> None:
    ended = run("learning.py", "a house by the sea")
    assert ended.code == 0, ended.err
    before, liked, disliked, learned, after = ended.out.split("\n$ darkroom ")
    first, second = re.findall(r"(clear-lens|canvas) \(", before)[:2]
    assert liked.count(": 5 of 5") == disliked.count(": 1 of 5") == 4
    assert re.search(rf"^model +{second} +plain +4\.0 +\+\d", learned, re.MULTILINE)
    assert re.search(rf"^model +{first} +plain +4\.0 +-\d", learned, re.MULTILINE)
    assert f"{second} (" in after and "because of your ratings" in after
    assert len(pictures(tmp_path)) == 8


@pytest.mark.slow
def test_learning_needs_two_models(run: Run, tmp_path: Path) -> None:
    ended = run("learning.py")
    assert ended.code == 1 and "demo is the only model here" in ended.err and pictures(tmp_path) == []


@pytest.mark.slow
def test_characters_show_every_pair_and_have_their_tags(run: Run, tmp_path: Path) -> None:
    ended = run("characters.py")
    assert ended.code == 0, ended.err
    pairs = re.search(r"pairs ([\d,]+) of ([\d,]+)", ended.out)
    assert pairs and pairs[1] == pairs[2]
    made = re.search(r"(\d+) requested: (\d+) made", ended.out)
    assert made and made[1] == made[2]
    rows = list(search(tmp_path / "work" / "outputs" / "characters", columns=("tags",)))
    assert len(rows) == int(made[1])
    shown = {(tag, other) for row in rows for tag in row["tags"] for other in row["tags"] if tag < other}
    expected = (
        {f"expression:{one}" for one in ("smiling", "serious")},
        {f"place:{one}" for one in ("a forest", "a harbour")},
    )
    assert all((one, other) in shown for one in expected[0] for other in expected[1])
    assert ended.out.count("age:seventies") == sum("age:seventies" in row["tags"] for row in rows) > 0


def test_the_readme_shows_these_files() -> None:
    shown = section("README.md", "From Python")
    for block in re.findall(r"^```python\n(.*?)^```", shown, re.MULTILINE | re.DOTALL):
        assert any(path.read_text(encoding="utf-8").endswith(f"\n\n{block}") for path in EXAMPLES.glob("*.py")), block
    linked = set(re.findall(r"\(examples/(\w+\.py)\)", shown))
    assert linked == {path.name for path in EXAMPLES.glob("*.py")}


def test_every_script_is_tried() -> None:
    tried = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tried | set(WITHOUT_RUN)
