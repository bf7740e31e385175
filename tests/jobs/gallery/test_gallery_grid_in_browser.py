"""The grid of the gallery in a real Chromium: axes, keys, the address, and pictures that arrive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from drawn_pictures import drawn
from manifest_rows import write_part
from seen_pages import IN_A_BROWSER, Overtaken, Seen, wait_for_text
from served_gallery import Served, served

from jobs.archive.search import search

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = IN_A_BROWSER

HOSTILE = """<img src=x onerror="alert(1)"> 日没"""


def put(output_dir: Path, part: str, *points: tuple[int, int, int]) -> None:
    """Pictures of these steps, seeds and prompts."""
    rows = []
    for steps, seed, prompt in points:
        same: dict[str, Any] = {"model": "demo", "loras": [], "tags": [], "selection": None}
        rows.append(drawn(output_dir, 100 * steps + 10 * seed + prompt, prompt=f"{HOSTILE}{prompt}", **same))
        rows[-1].update(steps=steps, seed=seed)
    write_part(output_dir, part, rows)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    """Steps 1 and 2, seeds 1 and 2, two prompts; one of the eight is not there."""
    put(tmp_path / "out", "a", *((s, n, p) for s in (1, 2) for n in (1, 2) for p in (0, 1) if (s, n, p) != (2, 2, 0)))
    with served(tmp_path / "out") as one:
        yield one


def shown(page: Page) -> list[list[str]]:
    """What stands in the table: of headings and empty cells the text, of pictures the words `picture`."""
    text = "one => one.dataset.id ? 'picture' : one.innerText"
    rows = "[...document.querySelectorAll('#cells tr')]"
    return list(page.evaluate(f"{rows}.map(row => [...row.children].map({text}))"))


def chooser(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name, exact=True)


def seeds(site: Served, where: str) -> list[tuple[int, int]]:
    return [(row["steps"], row["seed"]) for row in search(site.folder, where=where, columns=("steps", "seed"))]


def test_axes_move_and_the_address_brings_them_back(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.keyboard.press("g")
    page.wait_for_selector("#cells td.loaded")
    assert page.url.endswith("/?view=grid")
    assert shown(page) == [
        ["", "steps 1", "steps 2"],
        [f"{HOSTILE}0", "picture", "no image"],
        [f"{HOSTILE}1", "picture", "picture"],
    ], "with the seed of the picture that had the focus"
    chooser(page, "down").select_option("seed")
    assert shown(page)[0] == ["", "steps 1", "steps 2"] and [row[0] for row in shown(page)[1:]] == ["seed 1", "seed 2"]
    chooser(page, "prompt").select_option(f"{HOSTILE}0")
    assert shown(page)[2] == ["seed 2", "picture", "no image"]
    chooser(page, "across").select_option("seed")
    table = [["", "seed 1", "seed 2"], ["steps 1", "picture", "picture"], ["steps 2", "picture", "no image"]]
    assert shown(page) == table
    page.reload()
    page.wait_for_selector("#cells td.loaded")
    assert shown(page) == table
    page.get_by_role("group", name="Steps").get_by_label("2").check()
    wait_for_text(page, "#count", "3 pictures")
    page.get_by_role("columnheader", name="seed 2").wait_for()
    assert "steps=2" in page.url and "x=seed" in page.url
    page.get_by_role("rowheader", name=f"{HOSTILE}1").wait_for()
    chooser(page, "show").select_option("seconds")
    page.get_by_role("gridcell", name="1", exact=True).first.wait_for()
    overtaken = Overtaken(page, "/api/figures")
    chooser(page, "down").select_option("nothing")
    chooser(page, "across").select_option("prompt")
    of_prompts = page.get_by_role("columnheader", name=f"{HOSTILE}1")
    of_prompts.wait_for()
    overtaken.come()
    assert of_prompts.is_visible(), "figures of older axes do not replace these"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Wall").click()
    page.wait_for_selector("#wall .cell[data-index='0']:focus")
    assert page.locator("#injected, img[src=x]").count() == 0


def test_keys_go_through_cells_rate_and_open(site: Served, seen: Seen) -> None:
    key = hashlib.sha256(f"{HOSTILE}0".encode()).hexdigest()[:8]
    page = seen.page(site, f"view=grid&x=steps&y=seed&at.prompt={key}")
    page.wait_for_selector("#cells td:focus")
    heard = page.locator("#grid").aria_snapshot()
    for line in ('grid "Pictures by what varies"', 'columnheader "steps 2"', 'rowheader "seed 1"', 'combobox "across"'):
        assert line in heard, heard
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    site.until(lambda: (site.folder / "manifest" / "ratings").exists() and seeds(site, "rating = 4") == [(2, 1)])
    page.get_by_role("gridcell", name=f"{HOSTILE}0, 4 stars").wait_for()
    page.keyboard.press("ArrowDown")
    assert page.locator("#cells td:focus").inner_text() == "no image"
    page.keyboard.press("x")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Picture", exact=True)
    viewer.get_by_text("3 of 3").wait_for()
    page.keyboard.press("ArrowLeft")
    viewer.get_by_text("2 of 3").wait_for()
    viewer.get_by_role("group", name="Rated 4 of 5").wait_for()
    page.keyboard.press("x")
    site.until(lambda: seeds(site, "rejected") == [(2, 1)])
    page.keyboard.press("Escape")
    page.wait_for_selector("#cells td.rejected:focus")
    chooser(page, "prompt").select_option("any of 2")
    page.get_by_role("gridcell", name="2 pictures").first.wait_for()
    page.locator("#cells td[data-id]").first.click()
    viewer.get_by_text("1 of 7").wait_for()


def test_shift_selects_all_between_two_cells_and_a_word_is_for_them(site: Served, seen: Seen) -> None:
    page = seen.page(
        site, f"view=grid&x=steps&y=seed&at.prompt={hashlib.sha256(f'{HOSTILE}0'.encode()).hexdigest()[:8]}"
    )
    page.wait_for_selector("#cells td:focus")
    cells = page.locator("#cells td[role=gridcell]")
    cells.nth(1).click(modifiers=["Control"])
    cells.nth(1).click(modifiers=["Control"])
    cells.nth(2).click(modifiers=["Shift"])
    page.locator("#cells td[aria-selected=true]").nth(2).wait_for()
    assert page.evaluate("String(getSelection())") == "", "no text is marked on the way"
    page.keyboard.press("3")
    site.until(lambda: (site.folder / "manifest" / "ratings").exists() and len(seeds(site, "rating = 3")) == 3)
    assert sorted(seeds(site, "rating = 3")) == [(1, 1), (1, 2), (2, 1)]


def test_pictures_that_arrive_take_their_cells_and_nothing_moves(tmp_path: Path, seen: Seen) -> None:
    put(tmp_path / "out", "a", *((steps, seed, 0) for steps in range(2, 9) for seed in range(2, 12)))
    with served(tmp_path / "out") as site:
        page = seen.page(site, "view=grid&x=steps&y=seed", viewport={"width": 700, "height": 600})
        page.locator("#cells td[data-id]").nth(36).focus()
        for key in ("ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        place = "document.activeElement.getBoundingClientRect().toJSON()"
        before, name = page.evaluate(place), page.evaluate("document.activeElement.dataset.id")
        page.evaluate("document.activeElement.querySelector('img').dataset.same = 'yes'")
        put(site.folder, "b", *((1, seed, 0) for seed in range(1, 12)))  # a column and a row before all others
        page.get_by_role("columnheader", name="steps 1", exact=True).wait_for(state="attached")
        assert page.get_by_role("rowheader", name="seed 1", exact=True).count() == 1
        after = page.evaluate(place)
        assert page.evaluate("document.activeElement.dataset.id") == name
        assert abs(after["top"] - before["top"]) < 2 and abs(after["left"] - before["left"]) < 2
        assert page.evaluate("document.activeElement.querySelector('img').dataset.same") == "yes", (
            "it is no new element"
        )
        assert sum(cell == "picture" for row in shown(page) for cell in row) == 81


def test_more_than_a_grid_takes_is_said_with_the_way_out(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.gallery.grids.MAX_IMAGES", 3)
    put(tmp_path / "out", "a", *((steps, 1, 0) for steps in range(1, 6)))
    with served(tmp_path / "out") as site:
        page = seen.page(site)
        page.keyboard.press("g")
        page.locator("#note", has_text="5 pictures are more than the 3 that a grid lays out; choose a run").wait_for()
        page.get_by_role("group", name="Steps").get_by_label("2").check()
        page.wait_for_selector("#cells td.loaded")
        assert page.is_hidden("#note")


def test_where_there_is_nothing_yet_the_page_says_so(tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "out").mkdir()
    with served(tmp_path / "out") as site:
        page = seen.page(site, "view=grid")
        page.get_by_text("No pictures yet.").wait_for()
        put(site.folder, "a", (1, 1, 0), (2, 1, 0))
        page.wait_for_selector("#cells td[data-id]")
        assert shown(page) == [["steps 1", "steps 2"], ["picture", "picture"]]
