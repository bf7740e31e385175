"""The page in a real Chromium: what a person sees, presses and hears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drawn_pictures import draw, drawn
from manifest_rows import write_part
from seen_pages import IN_A_BROWSER, Overtaken, Seen, focused, wait_for_text
from served_gallery import Served, served

from benchmarks.manifests import write_searchable
from jobs.archive.search import search

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = IN_A_BROWSER

MOVED = "([cell, y]) => Math.abs(document.querySelector(cell).getBoundingClientRect().y - y) > 60"
EMPTY_CELLS = """() => {
    window.emptyCells = 0;
    const look = () => {
        const shown = document.querySelectorAll(".cell[data-id]").length;
        window.emptyCells = Math.max(window.emptyCells, shown ? 0 : 1);
        requestAnimationFrame(look);
    };
    look();
}"""
"""Notices in every frame from now on whether the wall has no picture at all."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    draw(tmp_path / "out", range(12))
    with served(tmp_path / "out") as one:
        yield one


def test_a_wall_of_thousands_has_a_few_cells_and_reaches_its_end(tmp_path: Path, seen: Seen) -> None:
    write_searchable(tmp_path / "out", 101_000, 4)
    with served(tmp_path / "out") as site:
        page = seen.page(site, viewport={"width": 700, "height": 900})
        shown = page.text_content("#count") or ""
        count = int(shown.partition(" ")[0].replace(",", ""))
        assert count == 100_899
        page.evaluate("document.getElementById('size').value = 400")
        page.dispatch_event("#size", "input")
        assert page.evaluate("document.getElementById('rows').clientHeight") <= 8_000_000
        page.keyboard.press("End")
        page.wait_for_selector(f".cell[data-index='{count - 1}'][data-id]")
        assert focused(page) == str(count - 1)
        box = page.locator(f".cell[data-index='{count - 1}']").bounding_box()
        assert box and box["y"] + box["height"] <= 900, "the last one is in view"
        page.evaluate("wall => wall.scrollTop = wall.scrollHeight / 2", page.query_selector("#wall"))
        middle = f".cell[data-index='{count // 2}'][data-id]"
        page.wait_for_selector(middle)
        before = page.locator(middle).bounding_box()
        page.mouse.move(300, 500)
        page.mouse.wheel(0, 120)
        page.wait_for_function(MOVED, arg=[middle, before and before["y"]])
        after = page.locator(middle).bounding_box()
        assert before and after and abs(before["y"] - after["y"] - 120) < 3, "the wheel moves as far as on a short wall"
        assert page.locator(".cell").count() < 200


def test_keys_rate_and_search_finds_it(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("p")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("Home")
    page.keyboard.press("t")
    page.keyboard.type("sea keep")
    page.keyboard.press("Enter")

    def seeds(where: str) -> list[int]:
        return [row["seed"] for row in search(site.folder, where=where, columns=("seed",))]

    site.until(lambda: (site.folder / "manifest" / "ratings").exists() and seeds("len(user_tags) = 2") == [11])
    assert (seeds("rating >= 4"), seeds("picked"), seeds("rejected")) == ([10], [9], [8])
    page.wait_for_selector(".cell[data-index='1'] .stars:text('★★★★')")
    page.wait_for_selector("label:has([aria-label='4 stars, 1'])")


def test_the_last_word_on_a_picture_counts_however_slow_the_first_is(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    overtaken = Overtaken(page, "/api/say")
    page.keyboard.press("4")
    page.keyboard.press("5")
    page.wait_for_timeout(300)  # in which the second word would be stored, if it did not wait for the first
    overtaken.come()
    site.until(lambda: [row["seed"] for row in search(site.folder, where="rating = 5", columns=("seed",))] == [11])


def test_shift_selects_all_between_two_pictures_and_a_word_is_for_them(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.locator(".cell[data-index='2']").click(modifiers=["Control"])
    page.locator(".cell[data-index='4']").click(modifiers=["Shift"])
    page.locator(".cell[data-index='3'][aria-selected=true]").wait_for()
    assert page.evaluate("String(getSelection())") == "", "no text is marked on the way"
    page.keyboard.press("2")
    rated = {9, 8, 7}
    site.until(lambda: {row["seed"] for row in search(site.folder, where="rating = 2", columns=("seed",))} == rated)


def test_a_page_is_not_left_while_a_word_is_on_its_way(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    overtaken = Overtaken(page, "/api/say")
    page.keyboard.press("4")
    page.keyboard.press("5")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    asked.value.dismiss()
    assert (asked.value.type, page.is_closed()) == ("beforeunload", False)
    overtaken.come()
    site.until(lambda: [row["seed"] for row in search(site.folder, where="rating = 5", columns=("seed",))] == [11])
    wait_for_text(page, "#told", "5 stars")  # once the answer is here
    with page.expect_event("close"):
        page.close(run_before_unload=True)
    assert seen.faults == ["dialog: "], "the one question"
    seen.faults.clear()


def test_facets_and_words_filter_and_stand_in_the_address(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.get_by_role("group", name="Model").get_by_label("sdxl").check()
    wait_for_text(page, "#count", "4 pictures")
    page.keyboard.press("/")
    assert focused(page) == "words"
    page.keyboard.type("boat")
    page.keyboard.press("Enter")
    wait_for_text(page, "#count", "1 picture")
    page.wait_for_selector(".cell[data-index='0']:focus")
    assert page.url.endswith("?model=sdxl&q=boat")
    page.reload()
    wait_for_text(page, "#count", "1 picture")
    page.get_by_role("button", name="Remove the filter sdxl").click()
    wait_for_text(page, "#count", "3 pictures")


def test_a_picture_that_is_made_appears_and_nothing_moves_under_a_reader(tmp_path: Path, seen: Seen) -> None:
    draw(tmp_path / "out", range(60))
    with served(tmp_path / "out") as site:
        page = seen.page(site)
        page.wait_for_selector(".cell[data-index='0'].loaded")
        page.evaluate(EMPTY_CELLS)
        draw(site.folder, range(60, 62), "b")
        page.wait_for_selector(".cell[data-index='0'][aria-label*='number 61']")
        wait_for_text(page, "#count", "62 pictures")
        assert page.evaluate("window.emptyCells") == 0, "what was there is seen until the new ones are"
        page.mouse.move(500, 500)
        page.mouse.wheel(0, 400)
        page.wait_for_function("() => document.getElementById('wall').scrollTop > 1")
        page.wait_for_selector(".cell[data-index='24'][data-id]")
        before = page.get_attribute(".cell[data-index='24']", "data-id")
        draw(site.folder, range(62, 65), "c")
        page.get_by_role("button", name="Show 3 new pictures").wait_for()
        assert page.get_attribute(".cell[data-index='24']", "data-id") == before
        page.keyboard.press("n")
        wait_for_text(page, "#count", "65 pictures")


def test_the_panel_and_two_side_by_side_by_keys(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Picture", exact=True)
    viewer.get_by_text("dreamshaper made it in 20 steps").wait_for()
    viewer.get_by_text("made for watercolour").wait_for()
    page.get_by_label("new seeds").fill("7")
    viewer.get_by_text("0011.png seeds=7").wait_for()
    overtaken = Overtaken(page, "/api/more")
    viewer.get_by_role("combobox", name="scheduler").select_option("Euler")
    viewer.get_by_label("width").fill("96")
    viewer.get_by_role("combobox", name="model").select_option("demo")
    command = viewer.get_by_text("0011.png seeds=7 sampling.scheduler=Euler sampling.width=96 model=demo")
    command.wait_for()
    overtaken.come()
    assert command.is_visible(), "the answer to older values does not replace it"
    page.get_by_role("button", name="Next picture").click()
    viewer.get_by_text("sdxl made it in 8 steps").wait_for()
    page.keyboard.press("3")
    viewer.get_by_role("group", name="Rated 3 of 5").wait_for()
    page.get_by_role("button", name="Note").click()
    page.get_by_label("Note", exact=True).fill("the light\nof it")
    page.get_by_role("button", name="Keep it").click()
    viewer.locator("p.note", has_text="the light").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector(".cell[data-index='1']:focus")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    compare = page.get_by_role("dialog", name="Pictures side by side")
    compare.get_by_role("row", name="model sdxl demo").wait_for()
    assert compare.get_by_role("rowheader", name="scheduler").count() == 0, "only what differs"
    compare.get_by_label("One over the other").check()
    slider = compare.get_by_role("slider", name="How much of the first picture is seen")
    slider.focus()
    page.keyboard.press("End")
    first, second = compare.locator("img").all()
    assert first.bounding_box() == second.bounding_box()
    assert str(first.evaluate("one => getComputedStyle(one).clipPath")).startswith("inset(0px 0%")
    box = slider.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert abs(float(slider.input_value()) - 25) < 2


def test_who_hears_the_page_hears_names(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.wait_for_selector("#filters .value")
    heard = page.locator("body").aria_snapshot()
    for line in (
        'grid "Pictures"', 'gridcell "a boat by the sea, number 11, dreamshaper"', 'complementary "Filters"',
        'group "Model"', 'checkbox "sdxl 4"', 'searchbox "Words in prompts', 'combobox "Order"',
        'slider "Size of the pictures', "status",
    ):  # fmt: skip
        assert line in heard, heard
    assert page.get_attribute("#wall", "aria-rowcount") and page.get_attribute(".cell", "aria-colindex") == "1"
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    page.keyboard.press("5")
    wait_for_text(page, "#told", "5 stars")


def test_markup_in_prompts_is_seen_as_text(tmp_path: Path, seen: Seen) -> None:
    html = '<img src=x onerror="alert(1)"><b id=injected>bold</b>'
    write_part(tmp_path / "out", "a", [drawn(tmp_path / "out", 1, prompt=html, model=html, tags=[html], loras=[html])])
    with served(tmp_path / "out") as site:
        page = seen.page(site)
        page.keyboard.press("Enter")
        page.get_by_role("dialog", name="Picture", exact=True).get_by_text("made it in").wait_for()
        assert html in (page.text_content("#viewer .prompt") or "")
        assert page.locator("#injected, img[src=x]").count() == 0
        assert len(site.rows()) == 1


def test_another_page_in_the_same_browser_gets_nothing(site: Served, seen: Seen, browser: Browser) -> None:
    page = seen.page(site)
    other = page.context.new_page()
    other.set_content("<p>another site</p>")
    address = f"http://{site.own.hosts[0]}"
    ask = "async ([url, how]) => { try { return (await fetch(url, how)).type } catch { return 'refused' } }"
    assert other.evaluate(ask, [f"{address}/api/news", {"credentials": "include"}]) == "refused"
    writing = {"method": "POST", "mode": "no-cors", "credentials": "include", "body": "{}"}
    other.evaluate(ask, [f"{address}/api/say", writing])
    assert not (site.folder / "manifest" / "ratings").exists()
