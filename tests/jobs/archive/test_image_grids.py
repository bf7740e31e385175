"""Grids: which axes there are and in which order, what a cell holds or why it is empty, pages that hold their word."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from manifest_rows import START, attempt_of, done_of, write_part
from PIL import Image
from recorded_images import SIZE, record_of

from jobs.archive import grid_html, grid_png, pictures
from jobs.archive.grid import LEFT_OUT, MAX_IMAGES, NONE, Grid, grid_of, mean_figures
from jobs.archive.grid_figures import MAX_SIDE, figure_rows
from jobs.archive.lettering import Lettering
from jobs.job import Job
from jobs.manifest.rows import attempt_row, done_row
from jobs.manifest.schema import FAILED
from pipeline.errors import ConfigError
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.record import (
    ControlNetRecord,
    EmbeddingRecord,
    InitRecord,
    IpAdapterRecord,
    PictureRecord,
    Scheduler,
)
from pipeline.metadata.xmp import DIGITAL_SOURCE_TYPE
from pipeline.request import (
    Adapters,
    ControlNetWeights,
    EmbeddingWeights,
    ImageRequest,
    InitImage,
    IpAdapterWeights,
    MemorySettings,
    ModelSettings,
    ReferenceImage,
)

Run = Callable[..., tuple[int, str, str]]

HOSTILE = """</script><img src=x onerror="alert('x')"> & "quotes" \u2028 <!-- 日没 العربية 🏠"""
RUN = "20260101T000000Z-abcd"


def put(folder: Path, rows: list[Any], *, pictures: bool = True) -> Path:
    write_part(folder, "a", rows)
    for row in rows if pictures else ():
        if row["path"]:
            place = folder / row["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (row["width"], row["height"]), (row["seed"] % 256, 90, 200)).save(place)
    return folder


def batch(folder: Path, **config: Any) -> None:
    place = folder / "runs" / RUN
    place.mkdir(parents=True)
    document = {"prompts": {"lines": ["a red house"]}, "sampling": {"scheduler": "DPM++ 2M"}, "seeds": [1], **config}
    (place / "batch.yaml").write_text(f"# run_id: {RUN}\n" + yaml.safe_dump(document, sort_keys=False))


def swept(**more: Any) -> list[Any]:
    """Steps and guidance, made in another order than asked for; the last of them has failed, and one is lacking."""
    points = [(5, 9.0), (20, 1.0), (20, 9.0), (5, 1.0), (10, 1.0)]
    rows: list[Any] = [
        done_of(n, steps=steps, guidance_scale=scale, seed=1, prompt="a red house", run_id=RUN, **more)
        for n, (steps, scale) in enumerate(points)
    ]
    failed = attempt_of(9, steps=10, guidance_scale=9.0, seed=1, prompt="a red house", run_id=RUN, **more)
    return [*rows, {**failed, "status": FAILED, "error_kind": "out_of_memory"}]


def labels(grid: Grid) -> dict[str, tuple[str, ...]]:
    return {axis.name: axis.labels for axis in grid.axes}


def test_axes_are_what_varies_with_every_value_named(tmp_path: Path) -> None:
    grid = grid_of(put(tmp_path, swept()))
    assert labels(grid) == {
        "steps": ("steps 5", "steps 10", "steps 20"),
        "guidance_scale": ("guidance_scale 1", "guidance_scale 9"),
    }
    assert "model demo" in grid.constant_text(private=False)
    assert {place: row[0]["steps"] for place, row in grid.images.items()} == {
        (0, 1): 5, (2, 0): 20, (2, 1): 20, (0, 0): 5, (1, 0): 10,
    }  # fmt: skip


def test_the_run_s_own_grid_gives_the_order_of_axes_and_values(tmp_path: Path) -> None:
    batch(tmp_path, grid={"sampling.guidance_scale": [9, 1], "sampling.steps": "range(5, 21, 5)"})
    grid = grid_of(put(tmp_path, swept()))
    assert list(labels(grid)) == ["guidance_scale", "steps"]
    assert labels(grid)["guidance_scale"] == ("guidance_scale 9", "guidance_scale 1")
    assert list(labels(grid_of(tmp_path, x="steps"))) == ["steps", "guidance_scale"]
    assert labels(grid_of(tmp_path, run="2026")) == labels(grid)


def test_an_empty_cell_says_why(tmp_path: Path) -> None:
    rows = swept()
    put(tmp_path, [rows[0], *rows[2:]])  # without (20, 1)
    assert grid_of(tmp_path).why_empty((1, 1)) == "failed: out_of_memory"
    assert grid_of(tmp_path).why_empty((2, 0)) == NONE
    batch(tmp_path, grid={"sampling.steps": [5, 10, 20], "sampling.guidance_scale": [1, 9]})
    assert grid_of(tmp_path).why_empty((2, 0)) == "not made"


def test_what_a_run_has_not_made_yet_has_its_place(tmp_path: Path) -> None:
    batch(tmp_path, grid={"sampling.steps": [5, 10, 20, 40], "sampling.scheduler": ["euler_a", "dpmpp_2m"]})
    put(tmp_path, [done_of(1, steps=5, scheduler="DPM++ 2M", seed=1, prompt="a red house", run_id=RUN)])
    grid = grid_of(tmp_path)
    assert labels(grid) == {
        "steps": ("steps 5", "steps 10", "steps 20", "steps 40"),
        "scheduler": ("scheduler Euler a", "scheduler DPM++ 2M"),
    }
    assert {grid.why_empty((x, y)) for x in range(4) for y in range(2) if (x, y) != (0, 1)} == {"not made"}
    assert grid_of(tmp_path, where="steps < 10").axes == (), "what a condition may leave out is not called not made"


def of_adapters(n: int, strength: float = 0.8, end: float = 1.0, **more: Any) -> Any:
    """A row with a ControlNet, as its record gives it."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture = PictureRecord(name="pose.png", sha256="d" * 64)
    net = ControlNetRecord(name="canny", sha256="e" * 64, image=picture, strength=strength, end=end)
    record = record_of(0, pixels, MetadataSettings()).model_copy(update={"controlnets": [net], **more})
    return {**done_row(record, f"study/{n:04d}.png", f"{n:064x}"), "image_id": f"{n:036d}"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [of_adapters(n, strength, end) for n, (strength, end) in enumerate(product((0.8, 0.5), (1.0, 0.6)))],
            {"controlnets": ("controlnets canny 0.5", "controlnets canny 0.8"),
             "controlnet_ends": ("controlnet_ends 0.6", "controlnet_ends 1")},
        ),
        (
            [of_adapters(0), of_adapters(1, controlnets=[])],
            {"controlnets": ("controlnets canny 0.8", "no ControlNet")},
        ),
        (
            [of_adapters(n, init=InitRecord(image=PictureRecord(name="boat.png", sha256="d" * 64), strength=strength))
             for n, strength in enumerate((1.0, 0.5))],
            {"strength": ("strength 0.5", "strength 1")},
        ),
        (
            [of_adapters(n, ip_adapters=[IpAdapterRecord(
                name="face", sha256="e" * 64, image=PictureRecord(name=f"{name}.png", sha256="d" * 64), scale=scale)])
             for n, (scale, name) in enumerate(product((0.4, 0.2), "ab"))],
            {"ip_adapters": ("ip_adapters face 0.2", "ip_adapters face 0.4"),
             "ip_adapter_images": ("ip_adapter_images a.png", "ip_adapter_images b.png")},
        ),
        (
            [of_adapters(n, embeddings=[EmbeddingRecord(name=name, sha256="d" * 64, token="x")] if name else [])
             for n, name in enumerate(("cat", ""))],
            {"embeddings": ("embeddings cat", "embeddings none")},
        ),
        (
            [of_adapters(n, scheduler=Scheduler(name="Euler", class_name="E", config={}, options=options))
             for n, options in enumerate(({"use_karras_sigmas": True}, {}))],
            {"scheduler_options": ("scheduler_options use_karras_sigmas=true", "scheduler_options none")},
        ),
        ([of_adapters(0, step_cache="first_block"), of_adapters(1)],
         {"step_cache": ("step_cache none", "step_cache first_block")}),
    ],
)  # fmt: skip
def test_images_that_differ_in_one_number_have_cells_of_their_own(
    rows: list[Any], expected: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    grid = grid_of(put(tmp_path, rows, pictures=False))
    assert labels(grid) == expected and all(len(found) == 1 for found in grid.images.values())


def test_a_job_that_failed_lies_in_the_cell_of_its_own_numbers(tmp_path: Path) -> None:
    picture = ReferenceImage("pose.png", "/pose.png", "d" * 64)
    net = ControlNetWeights("canny", "/canny", "e" * 64, picture, strength=0.5)
    face = IpAdapterWeights("face", "/face", "f" * 64, picture, scale=0.2)
    adapters = Adapters((), (EmbeddingWeights("cat", "/cat", "1" * 64, "x"),), (net,), (face,), InitImage(picture, 0.5))
    request = ImageRequest(
        "a red house, number 0, 日没", "", 0, 8, 3.5, SIZE, SIZE, "DPM++ 2M", None,
        ModelSettings("demo", "/demo", "a" * 64, "sd"), MemorySettings(), (("use_karras_sigmas", True),),
        "first_block", adapters,
    )  # fmt: skip
    failed = attempt_row(Job("0" * 64, request, 0, "study", "s", 0, None, ()), RUN, 1, FAILED, START)
    alike: dict[str, Any] = {
        "embeddings": [EmbeddingRecord(name="cat", sha256="1" * 64, token="x")],
        "ip_adapters": [IpAdapterRecord(
            name="face", sha256="f" * 64, image=PictureRecord(name="pose.png", sha256="d" * 64), scale=0.2)],
        "init": InitRecord(image=PictureRecord(name="pose.png", sha256="d" * 64), strength=0.5),
        "scheduler": Scheduler(name="DPM++ 2M", class_name="D", config={}, options={"use_karras_sigmas": True}),
        "step_cache": "first_block", "vae": None, "loras": [],
    }  # fmt: skip
    rows = [of_adapters(0, 0.5, **alike), of_adapters(1, 0.8, **alike), failed]
    grid = grid_of(put(tmp_path, rows, pictures=False))
    assert labels(grid) == {"controlnets": ("controlnets canny 0.5", "controlnets canny 0.8")} and not grid.failures
    grid = grid_of(put(tmp_path, rows[1:], pictures=False))
    assert grid.failures == {(0,): FAILED}


def test_rows_of_before_there_was_a_column_share_the_cell_of_none(tmp_path: Path) -> None:
    path = write_part(tmp_path, "old", [done_of(1, prompt="x", seed=1)])
    pq.write_table(pq.read_table(path).drop_columns(["embeddings", "controlnet_strengths", "strength"]), path)
    write_part(tmp_path, "new", [done_of(2, prompt="x", seed=1)])
    assert grid_of(tmp_path).axes == ()
    first = of_adapters(3)
    path = write_part(tmp_path, "old", [first])
    pq.write_table(pq.read_table(path).drop_columns(["controlnet_strengths"]), path)
    write_part(tmp_path, "new", [of_adapters(4)])
    assert sorted(labels(grid_of(tmp_path))["controlnets"]) == ["controlnets canny", "controlnets canny 0.8"]


def test_an_empty_cell_of_adapters_weights_was_asked_for(tmp_path: Path) -> None:
    batch(tmp_path, grid={"adapters.loras.0.weight": [0.4, 0.8], "init.strength": [0.5, 1.0]})
    points = [(0.8, 0.5), (0.4, 0.5), (0.8, 1.0)]
    rows = [
        done_of(n, loras=["ink"], lora_weights=[weight], init_image="boat.png", strength=strength, seed=1, run_id=RUN,
                prompt="a red house")
        for n, (weight, strength) in enumerate(points)
    ]  # fmt: skip
    grid = grid_of(put(tmp_path, rows))
    assert labels(grid)["loras"] == ("loras ink 0.4", "loras ink 0.8")
    assert grid.why_empty((0, 1)) == "not made"


def test_what_a_condition_does_not_find_is_not_called_not_made(tmp_path: Path) -> None:
    batch(tmp_path, grid={"sampling.steps": [5, 10, 20], "sampling.guidance_scale": [1, 9]})
    rows = swept()
    rows[1]["seconds"] = 9.0
    put(tmp_path, rows)
    grid = grid_of(tmp_path, where="seconds < 9 AND steps <> 10 OR status = 'failed'")
    assert labels(grid)["steps"] == ("steps 5", "steps 10", "steps 20"), "a failure has 10"
    why = {place: grid.why_empty(place) for place in ((2, 0), (1, 0), (1, 1))}
    assert why == {(2, 0): LEFT_OUT, (1, 0): LEFT_OUT, (1, 1): "failed: out_of_memory"}


def test_a_run_that_went_on_shows_what_was_there_before(tmp_path: Path) -> None:
    batch(tmp_path, grid={"sampling.steps": [5, 10, 20], "sampling.guidance_scale": [1, 9]})
    rows = swept(name="it's mine")
    for row in rows[:2]:
        row["run_id"] = "20250101T000000Z-1234"
    for row in rows[2:]:
        row["controlnet_strengths"] = []  # those that were there are older than the column
    others = [
        done_of(20, steps=20, guidance_scale=1.0, seed=1, prompt="x", name="another", run_id="earlier"),
        done_of(21, steps=30, guidance_scale=1.0, seed=1, prompt="a red house", name="it's mine", run_id="earlier"),
        done_of(22, steps=20, guidance_scale=1.0, seed=2, prompt="a red house", name="it's mine", run_id="earlier"),
    ]
    grid = grid_of(put(tmp_path, [*rows, *others]), run=RUN)
    assert grid.count == 5 and list(labels(grid)) == ["steps", "guidance_scale"]


def test_what_vary_together_was_not_asked_for_otherwise(tmp_path: Path) -> None:
    batch(tmp_path, grid={"sampling.steps+sampling.guidance_scale": [[5, 9], [20, 1]]})
    grid = grid_of(put(tmp_path, swept()[:2]))
    assert grid.why_empty((0, 1)) == "not asked for"


@pytest.mark.parametrize("text", ["[", "- 1\n- 2\n", "grid: 7\nprompts: 3\n", "x: &a [*a]", "\x00"])
def test_a_stranger_s_batch_file_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    (tmp_path / "runs" / RUN / "batch.yaml").write_text(text)
    assert len(grid_of(put(tmp_path, swept())).axes) == 2


def test_failures_of_earlier_attempts_do_not_count_where_there_is_an_image(tmp_path: Path) -> None:
    rows = swept()
    again = done_of(9, steps=10, guidance_scale=9.0, seed=1, prompt="a red house", run_id=RUN, attempt=2)
    assert grid_of(put(tmp_path, [*rows, again])).failures == {}


def test_sizes_models_and_loras_are_axes_of_their_own(tmp_path: Path) -> None:
    rows = [
        done_of(0, width=64, height=96, model="demo", model_sha256="a" * 64, loras=["ink"], lora_weights=[0.8]),
        done_of(1, width=96, height=64, model="demo", model_sha256="b" * 64, prompt="a red house, number 0", seed=0),
    ]
    found = labels(grid_of(put(tmp_path, rows)))
    assert found["size"] == ("size 64 x 96", "size 96 x 64")
    assert found["loras"] == ("loras ink 0.8", "no LoRA")
    assert found["model"] == (f"model demo ({'a' * 8})", f"model demo ({'b' * 8})")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"x": "stepz"}, "no such axis; did you mean 'steps'"),
        ({"y": "scheduler"}, "does not vary among these images; there are steps, guidance_scale"),
        ({"x": "steps", "y": "steps"}, "name two"),
        ({"where": "steps = 99"}, "nothing found"),
        ({"where": "stepz > 1"}, "stepz"),
    ],
)
def test_what_cannot_be_laid_out_is_one_clear_line(options: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        grid_of(put(tmp_path, swept()), **options)
    assert told in str(error.value) and len(error.value.faults) == 1


@pytest.mark.slow
def test_more_than_ten_thousand_images_are_refused(tmp_path: Path) -> None:
    plain = done_of(0)
    rows = [{**plain, "image_id": f"{n:036d}", "seed": n} for n in range(MAX_IMAGES + 1)]
    put(tmp_path, rows, pictures=False)
    with pytest.raises(ConfigError, match="more than 10,000 images"):
        grid_of(tmp_path)
    grid = grid_of(tmp_path, where=f"seed < {MAX_IMAGES}")
    assert grid.count == MAX_IMAGES
    with pytest.raises(ConfigError, match="one page would be"):
        grid_png.draw_grid(grid, tmp_path, 256)


def test_png_pages_have_every_image_at_its_place_and_are_marked(tmp_path: Path, darkroom: Run) -> None:
    put(tmp_path, swept())
    code, out, err = darkroom("grid", "--png", tmp_path / "g.png", "--output-dir", tmp_path)
    assert (code, err) == (0, "") and "g.png: written" in out
    with Image.open(tmp_path / "g.png") as page:
        assert DIGITAL_SOURCE_TYPE in page.info["XML:com.adobe.xmp"]
        colours = [colour for _, colour in page.convert("RGB").getcolors(1 << 20) or []]
    assert (1, 90, 200) in colours  # of the images


def test_images_stay_within_their_cells_whatever_labels_need(tmp_path: Path) -> None:
    long = "a-name-of-a-model-that-is-wider-than-any-of-its-images"
    rows = [done_of(n, model=long, seed=n, prompt="x", width=64, height=640) for n in range(2)]
    rows += [done_of(9, model="demo", seed=0, prompt="x", width=64, height=640)]
    (page,) = grid_png.draw_grid(grid_of(put(tmp_path, rows)), tmp_path, 200)
    blue = sum(count for count, colour in page.getcolors(1 << 20) or [] if colour[1:] == (90, 200))
    assert blue == 3 * 20 * 200


def test_long_grids_are_several_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [done_of(n, prompt=f"p{n % 4}", steps=n // 4 % 2 + 1, seed=n // 8) for n in range(16)]
    grid = grid_of(put(tmp_path, rows))
    whole = grid_png.draw_grid(grid, tmp_path, 64)
    monkeypatch.setattr(grid_png, "MAX_SIDE_PX", whole[0].height - 1)
    pages = grid_png.draw_grid(grid, tmp_path, 64)
    assert (len(whole), len(pages)) == (1, 2) and all(page.height < whole[0].height for page in pages)


@pytest.mark.parametrize("name", ["x" * 300, "a-model-with-a-long-name/and-a-second-part v1.5", "日没モデル", HOSTILE])
def test_names_are_wrapped_and_never_cut(name: str) -> None:
    lettering = Lettering(15)
    lines = lettering.wrapped(name, 120)
    assert "".join(lines).replace(" ", "") == "".join(name.replace("\u2028", "\ufffd").split())
    assert all(lettering.width(line) <= 120 or len(line) == 1 for line in lines)


def test_prompts_of_every_script_are_drawn(tmp_path: Path) -> None:
    rows = [done_of(n, prompt=prompt, seed=1) for n, prompt in enumerate((HOSTILE, "日没の赤い家", "x" * 3_000))]
    pages = grid_png.draw_grid(grid_of(put(tmp_path, rows)), tmp_path, 64)
    assert len(pages) == 1


def read_page(text: str) -> dict[str, Any]:
    """The data of a page, as a browser finds it: up to the first end of a script."""
    start = text.index('id="grid">') + len('id="grid">')
    return dict(json.loads(text[start : text.index("</script>", start)]))


def test_a_page_holds_hostile_prompts_as_data_alone(
    tmp_path: Path, darkroom: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_png, "hides_prompt", lambda output_dir, path: False)  # as if the files told them
    rows = [done_of(n, prompt=f"{HOSTILE}{n}", model=HOSTILE, seed=1) for n in range(2)]
    put(tmp_path, rows)
    words = ("--where", "prompt <> '</script><script>'")
    assert darkroom("grid", *words, "--html", tmp_path / "g.html", "--output-dir", tmp_path)[0] == 0
    text = (tmp_path / "g.html").read_text(encoding="utf-8")
    data = read_page(text)
    assert data["axes"][0]["labels"] == [f"{HOSTILE}0", f"{HOSTILE}1"]
    outside = text.replace(json.dumps(data), "")
    assert text.lower().count("<script") == 2 and "<img" not in outside and 'onerror="' not in outside
    assert not re.search(
        r"(?:https?:)?//[\w.]+", re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.S)
    )
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "document.write" not in text


def test_a_page_allows_its_own_script_and_no_other(tmp_path: Path) -> None:
    page = grid_html.write_grid_page(grid_of(put(tmp_path, swept())), tmp_path, tmp_path / "g.html", "t")
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    script, style = (
        re.findall(r"<script>(.*?)</script>", text, re.S)[-1],
        re.findall(r"<style>(.*?)</style>", text, re.S),
    )
    assert policy and policy[1].startswith("default-src 'none'; img-src data: file: 'self'; ")
    for part in (script, style[0]):
        assert base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() in policy[1]
    data = read_page(text)
    assert len(data["images"]) == 5 and all(one["src"].startswith("data:image/webp;base64,") for one in data["images"])
    assert [0, 1] in [place for place, images, _ in data["cells"] if images]
    assert [why for _, images, why in data["cells"] if not images] == ["failed: out_of_memory"]
    assert ["steps", "5"] in data["images"][0]["record"]


def test_many_images_are_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_html, "MAX_INSIDE", 4)
    page = grid_html.write_grid_page(grid_of(put(tmp_path, swept())), tmp_path, tmp_path / "g.html", "t")
    assert page == tmp_path / "g" / "index.html"
    data = json.loads((page.parent / "grid.js").read_text().removeprefix("window.GRID = ").rstrip(";\n"))
    for image in data["images"]:
        with Image.open(page.parent / image["src"]) as small:
            assert small.format == "WEBP"


@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("page.html", True),
        ("out/page.html", True),
        ("out/grids/page.html", True),
        ("pages/page.html", True),
        ("../page.html", True),
        ("../else/where/page.html", False),
    ],
)
def test_a_page_links_files_that_lie_near_it(place: str, near: bool, tmp_path: Path) -> None:
    folder = put(tmp_path / "study" / "out", [done_of(0, path="a #b%20/x?.png")])
    page = grid_html.write_grid_page(grid_of(folder), folder, tmp_path / "study" / place, "t")
    text = page.read_text(encoding="utf-8")
    link = unquote(urlsplit(read_page(text)["images"][0]["original"]).path)
    assert (page.parent / link).resolve() == folder / "a #b%20" / "x?.png" if near else link == ""
    policy = "img-src data: file: 'self'; " if near else "img-src data:; "
    assert policy in text and text.count("file:") == near and str(tmp_path) not in text


def test_private_prompts_are_on_no_page(tmp_path: Path) -> None:
    from recorded_images import save_image

    from jobs.manifest.journal import Journal

    journal = Journal(tmp_path)
    for n in range(2):
        save_image(journal, tmp_path, n, profile="private")
    journal.close()
    grid = grid_of(tmp_path)
    text = grid_html.write_grid_page(grid, tmp_path, tmp_path / "g.html", "t").read_text(encoding="utf-8")
    assert "red house" not in text and "blurry" not in text and "prompt 1" in text
    for image in tmp_path.glob("study/*"):
        image.unlink()
    assert grid_png.private_prompts(grid, tmp_path)


def test_prompts_are_told_though_a_file_is_gone(tmp_path: Path) -> None:
    from recorded_images import save_image

    from jobs.manifest.journal import Journal

    journal = Journal(tmp_path)
    paths = [save_image(journal, tmp_path, n)["path"] for n in range(2)]
    journal.close()
    (tmp_path / str(paths[0])).unlink()
    text = grid_html.write_grid_page(grid_of(tmp_path), tmp_path, tmp_path / "g.html", "t").read_text(encoding="utf-8")
    assert "a red house, number 0" in text and "a red house, number 1" in text


def test_small_copies_are_colours_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode, colour in (
        ("a.jpg", "CMYK", (0, 255, 255, 0)),
        ("b.png", "P", 1),
        ("c.png", "RGBA", (254, 0, 0, 9)),
    ):
        image = Image.new(mode, (700, 500), colour)
        if mode == "P":
            image.putpalette([0, 0, 0, 254, 0, 0])
        exif = Image.Exif()
        exif[0x010E] = "a secret recipe"
        image.save(tmp_path / name, exif=exif, icc_profile=b"a secret profile")
        content = pictures.thumbnail(tmp_path, name)
        assert content and b"secret" not in content
        with Image.open(io.BytesIO(content)) as small:
            assert (small.mode, small.size) == ("RGB", (256, 183)) and small.getpixel((9, 9))[0] > 250  # type: ignore[index]
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 100)
    assert pictures.thumbnail(tmp_path, "c.png") is None


def test_files_outside_the_output_folder_are_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    folder = tmp_path / "outputs"
    put(folder, [done_of(0, path="a/link.png")], pictures=False)
    (folder / "a").mkdir()
    (folder / "a" / "link.png").symlink_to(secret)
    text = grid_html.write_grid_page(grid_of(folder), folder, tmp_path / "g.html", "t").read_text()
    assert read_page(text)["images"][0]["src"] == ""


def test_figures_are_means_over_the_selectors(tmp_path: Path, darkroom: Run) -> None:
    rows = [done_of(n, steps=5 * (n % 2 + 1), seed=n // 2, prompt="x", seconds=float(n)) for n in range(4)]
    grid = grid_of(put(tmp_path, rows), x="steps")
    assert mean_figures(grid_of(tmp_path, x="steps", where="seed >= 0"), "seconds")[0, 0] == 0.0
    assert figure_rows(grid, "seconds")[0] == ["mean seconds", "steps 5", "steps 10"]
    code, out, _ = darkroom("grid", "--by", "seconds", "--output-dir", tmp_path)
    assert code == 0 and out.splitlines()[0].split("  ")[0] == "mean seconds"
    files = (tmp_path / "f.html", tmp_path / "f.png")
    asked = ("--by", "seconds", "--html", files[0], "--png", files[1])
    assert darkroom("grid", *asked, "--output-dir", tmp_path)[0] == 0
    page = files[0].read_text()
    assert page.count("<circle") == 4 and 'class="heat10">3<' in page and "<script" not in page
    code, _, err = darkroom("grid", "--by", "rating", "--output-dir", tmp_path)
    assert code == 2 and "none of these images has it" in err


def test_too_many_values_are_no_figures(tmp_path: Path) -> None:
    rows = [done_of(n, prompt="x") for n in range(MAX_SIDE + 1)]
    with pytest.raises(ConfigError, match="more than 200 values"):
        figure_rows(grid_of(put(tmp_path, rows, pictures=False)), "seconds")
