"""The gallery's grid: axes, order and reasons of `darkroom grid`, over what the page's filter finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from drawn_pictures import drawn
from manifest_rows import attempt_of, done_of, write_part
from served_gallery import Served, served

from jobs.archive import grid as grids
from jobs.archive.grid import grid_of
from jobs.manifest.schema import FAILED, Row

Darkroom = Callable[..., tuple[int, str, str]]

RUN = "20260101T000000Z-abcd"
SAME: dict[str, Any] = {"model": "demo", "loras": [], "seed": 1, "run_id": RUN, "selection": None}
POINTS = ((5, 9.0), (20, 1.0), (20, 9.0), (5, 1.0), (10, 1.0))


def sweep(output_dir: Path) -> list[Row]:
    """Steps and guidance of one picture; one point has failed. The run's own grid has the guidance first, the greater
    value first, and two more points, of which no picture is.
    """
    rows = [
        drawn(output_dir, n, prompt="a boat", tags=["sea"], steps=steps, guidance_scale=scale, **SAME)
        for n, (steps, scale) in enumerate(POINTS)
    ]
    failed = attempt_of(9, prompt="a boat", height=48, steps=10, guidance_scale=9.0, seed=1, run_id=RUN)
    rows.append({**failed, "status": FAILED, "error_kind": "out_of_memory"})
    write_part(output_dir, "a", rows)
    config = {
        "prompts": {"lines": ["a boat"]},
        "seeds": [1],
        "grid": {"sampling.guidance_scale": [9, 1], "sampling.steps": [5, 10, 20]},
    }
    (output_dir / "runs" / RUN).mkdir(parents=True)
    (output_dir / "runs" / RUN / "batch.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return rows


def laid_out(site: Served, query: str = "") -> tuple[dict[str, list[str]], dict[tuple[str, ...], str]]:
    """The labels of each axis, and by the labels of a cell how many pictures it has or why it has none."""
    status, found = site.get(f"/api/grid?{query}")
    assert status == 200, found
    axes = {axis["name"]: axis["labels"] for axis in found["axes"]}
    cells = {
        tuple(labels[at] for labels, at in zip(axes.values(), place, strict=True)): why or str(len(images))
        for place, images, why in found["cells"]
    }
    return axes, cells


def test_axes_order_and_reasons_are_those_of_the_command(tmp_path: Path) -> None:
    sweep(tmp_path / "out")
    with served(tmp_path / "out") as site:
        axes, cells = laid_out(site)
        expected = grid_of(tmp_path / "out")
        assert axes == {axis.name: [*axis.labels] for axis in expected.axes} and [*axes] == ["guidance_scale", "steps"]
        assert axes["guidance_scale"] == ["guidance_scale 9", "guidance_scale 1"]
        assert cells["guidance_scale 9", "steps 10"] == "failed: out_of_memory"
        assert cells["guidance_scale 1", "steps 5"] == "1" and len(cells) == 6
        _, found = site.get("/api/grid")
        assert found["constant"] == expected.constant_text(private=False) and found["figures"] == ["seconds"]
        assert found["axes"][0]["keys"] == ["9", "1"]


def test_a_filter_narrows_axes_and_says_what_it_left_out(tmp_path: Path, darkroom: Darkroom) -> None:
    rows = sweep(tmp_path / "out")
    with served(tmp_path / "out") as site:
        axes, cells = laid_out(site, "steps=5&steps=10&q=BOAT&tag=sea&since=2026-01-01")
        assert axes["steps"] == ["steps 5", "steps 10"]
        assert laid_out(site, "tag=tests")[1] == {(): "failed: out_of_memory"}, "failures have tags, too"
        for row in (rows[0], rows[1]):
            site.post("/api/say", {"images": [row["image_id"]], "kind": "rating", "value": "4"})
        site.until(lambda: len(site.rows("rating=4")) == 2)
        axes, cells = laid_out(site, "rating=4")
        assert axes == {
            "guidance_scale": ["guidance_scale 9", "guidance_scale 1"],
            "steps": ["steps 5", "steps 20"],
        }
        assert cells["guidance_scale 1", "steps 5"] == "left out by the filter"
        site.post("/api/say", {"images": [rows[3]["image_id"]], "kind": "reject", "value": "yes"})
        assert darkroom("remove-rejected", "--yes", "--output-dir", site.folder)[0] == 0
        site.until(lambda: laid_out(site)[1]["guidance_scale 1", "steps 5"] == "rejected and removed")


def test_what_was_not_asked_for_or_not_made_is_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = sweep(out)
    for part in (out / "manifest" / "parts").iterdir():
        part.unlink()
    write_part(out, "b", [rows[0], rows[1], rows[4]])
    with served(out) as site:
        _, cells = laid_out(site)
        assert cells["guidance_scale 1", "steps 5"] == "not made"
        (out / "runs" / RUN / "batch.yaml").unlink()
    with served(out) as site:
        assert laid_out(site)[1]["steps 5", "guidance_scale 1"] == "no image", "what the run was asked for is not known"


def test_figures_are_means_over_the_other_axes(tmp_path: Path) -> None:
    rows = [drawn(tmp_path / "out", n, **{**SAME, "prompt": "x", "tags": []}, steps=n % 2) for n in range(4)]
    for n, row in enumerate(rows):
        row.update(seed=n // 2, seconds=float(n))
    write_part(tmp_path / "out", "a", rows)
    with served(tmp_path / "out") as site:
        _, found = site.get("/api/figures?by=seconds&x=steps&y=")
        assert found["labels"] == [["steps 0", "steps 1"], [""]]
        assert found["rows"] == [[["1", 0.0], ["2", 1.0]]] and found["count"] == 4
        for wrong in ("by=path&x=steps&y=seed", "by=seconds&x=steps&y=seed&model=none"):
            status, answer = site.get(f"/api/figures?{wrong}")
            assert status == 400 and "\n" not in answer["error"]


def test_more_pictures_than_a_grid_takes_is_one_line_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = done_of(0)
    write_part(tmp_path, "a", [{**plain, "image_id": f"{n:036d}", "seed": n} for n in range(grids.MAX_IMAGES + 1)])
    with served(tmp_path) as site:
        status, answer = site.get("/api/grid")
        assert status == 400 and answer["error"].startswith("10,001 pictures are more than the 10,000")
        assert "choose a run" in answer["error"]
        assert site.get("/api/grid?until=2025-12-31")[1]["cells"] == []


def test_only_pictures_of_known_ids_are_told(tmp_path: Path) -> None:
    row = drawn(tmp_path / "out", 1)
    write_part(tmp_path / "out", "a", [row])
    with served(tmp_path / "out") as site:
        _, found = site.get(f"/api/pictures?id={row['image_id']}&id=00000000-0000-4000-8000-000000000000")
        assert [one["image_id"] for one in found["rows"]] == [row["image_id"]]
        assert {"path", "job_id"}.isdisjoint(found["rows"][0])
        for wrong in ("id=../x", "&".join(f"id={row['image_id']}" for _ in range(201))):
            assert site.get(f"/api/pictures?{wrong}")[0] == 400
        for wrong in ("x=steps", "steps=" + "9" * 500, "rating=9"):
            assert site.get(f"/api/grid?{wrong}")[0] == 400


@pytest.mark.parametrize("value", ["it's", "'; DROP TABLE images; --", '"', "]), (SELECT 1)"])
def test_values_of_facets_are_never_sql(value: str, tmp_path: Path) -> None:
    rows = [drawn(tmp_path / "out", n, model=value, tags=[value], run_id=value) for n in range(2)]
    write_part(tmp_path / "out", "a", rows)
    with served(tmp_path / "out") as site:
        _, cells = laid_out(site, urlencode({"model": value, "tag": value, "run": value}))
        assert sum(int(one) for one in cells.values() if one.isdecimal()) == 2
