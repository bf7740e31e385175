"""What hands do on the gallery's page, in a real Chromium: wheels, narrow windows, odd orders of keys and clicks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drawn_pictures import draw
from seen_pages import IN_A_BROWSER, Seen, focused, wait_for_text
from served_gallery import Served, served

from jobs.archive.search import search

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = IN_A_BROWSER


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    draw(tmp_path / "out", range(12))
    with served(tmp_path / "out") as one:
        yield one


def rejected(site: Served) -> set[int]:
    ratings = (site.folder / "manifest" / "ratings").exists()
    return {row["seed"] for row in search(site.folder, where="rejected", columns=("seed",))} if ratings else set()


def wheel(page: Page, by: int, until: str) -> None:
    """Turn the wheel as a person does who looks at the page: again, until it is where it should be."""
    for _ in range(20):
        page.mouse.wheel(0, by)
        page.wait_for_timeout(200)
        if page.evaluate(until):
            return
    raise AssertionError(f"never: {until}")


def test_a_wall_of_hundreds(tmp_path: Path, seen: Seen) -> None:
    """Wheeled down and up again, then selected from end to end."""
    draw(tmp_path / "out", range(250))
    with served(tmp_path / "out") as site:
        page = seen.page(site)
        page.mouse.move(500, 500)
        wait_for_text(page, "#count", "250 pictures")
        wheel(page, 3000, "document.getElementById('wall').scrollTop > 2900")
        first, wall = "document.querySelector('.cell[data-index=\"0\"]')", "document.getElementById('wall')"
        top = "getBoundingClientRect().top"
        wheel(page, -3000, f"{first}?.{top} > {wall}.{top}")
        page.locator(".cell[data-index='0'][data-id]").click(modifiers=["Control"])
        page.keyboard.press("End")
        page.locator(".cell[data-index='249'][data-id]").wait_for()
        page.evaluate("document.getElementById('wall').scrollTop = 0")
        page.locator(".cell[data-index='0'][data-id]").click(modifiers=["Control"])
        page.locator(".cell[data-index='0'][data-id]").click(modifiers=["Control"])
        page.evaluate("document.getElementById('wall').scrollTop = 1e6")
        page.locator(".cell[data-index='248'][data-id]").click(modifiers=["Shift"])
        wait_for_text(page, "#tray span", "200 selected")
        wait_for_text(page, "#notice", "200 at most can be selected")
        page.evaluate("document.getElementById('wall').scrollTop = 0")
        page.locator(".cell[data-index='12'][aria-selected=true]").wait_for()


def test_a_picture_fills_a_narrow_window(site: Served, seen: Seen) -> None:
    page = seen.page(site, viewport={"width": 400, "height": 700})
    page.locator(".cell[data-id]").first.click()
    viewer = page.get_by_role("dialog", name="Picture", exact=True)
    viewer.get_by_text("The whole record").wait_for()  # all that is written of it is there
    stage = viewer.locator(".stage")
    box = stage.bounding_box()
    assert box and box["width"] > 380 and box["height"] > 250, box
    stage.locator("img").click()
    page.locator(".stage.actual").wait_for()


def test_words_of_what_is_selected_go_back_and_forth(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.locator(".cell[data-index='0']").click(modifiers=["Control"])
    page.locator(".cell[data-index='1']").click(modifiers=["Control"])
    for wanted in ({11, 10}, set(), {11, 10}):
        page.keyboard.press("x")
        site.until(lambda wanted=wanted: rejected(site) == wanted)
        page.wait_for_timeout(2500)  # in which the page reads anew what was said
    page.keyboard.press("t")
    page.keyboard.type("zeta")
    page.keyboard.press("Enter")
    site.until(lambda: len([*search(site.folder, where="list_contains(user_tags, 'zeta')", columns=("seed",))]) == 2)
    page.wait_for_timeout(2500)
    page.keyboard.press("t")
    page.locator("#tagging .tag", has_text="zeta").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    wait_for_text(page, "#notice", "a pick is of one picture")
    page.locator(".cell[data-index='1']").click(modifiers=["Control"])
    page.keyboard.press("p")
    page.locator(".cell.picked").wait_for()
    page.keyboard.press("Home")
    page.keyboard.press("c")
    wait_for_text(page, "#notice", "select one more to compare")
    page.locator(".cell[data-index='1']").click(modifiers=["Control"])
    next((site.folder / "study").glob("0010.png")).unlink()
    page.keyboard.press("c")
    compare = page.get_by_role("dialog", name="Pictures side by side")
    compare.get_by_role("button", name="Picked", exact=True).wait_for()
    compare.locator("figure.gone").wait_for()


def test_keys_are_for_pictures_where_the_focus_is_on_them(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.get_by_role("group", name="Model").get_by_label("sdxl").check()
    wait_for_text(page, "#count", "4 pictures")
    page.keyboard.press("x")
    page.wait_for_timeout(500)
    assert rejected(site) == set(), "the focus is on the filter"
    page.keyboard.press("/")
    page.keyboard.type("boat")
    wait_for_text(page, "#count", "1 picture")
    page.keyboard.press("/")
    page.keyboard.type("s")
    page.keyboard.press("Escape")
    assert page.input_value("#words") == "boat" and page.url.endswith("q=boat"), "the box says what is looked for"
    page.keyboard.press("x")
    site.until(lambda: len(rejected(site)) == 1)


def test_an_open_picture_is_followed_by_all_keys_that_go(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    page.locator(".cell[data-index='3']").dblclick()
    viewer = page.get_by_role("dialog", name="Picture", exact=True)
    viewer.get_by_text("4 of 12").wait_for()
    assert viewer.locator(".stage.actual").count() == 0, "the second click is not for the open picture"
    for key, place in (("ArrowDown", 5), ("ArrowUp", 4), ("End", 12), ("PageUp", 2), ("PageDown", 12), ("Home", 1)):
        page.keyboard.press(key)
        viewer.get_by_text(f"{place} of 12").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    page.keyboard.press("ArrowRight")
    viewer.get_by_text("3 of 12").wait_for()
    page.keyboard.press("t")
    page.keyboard.type("x" * 120)
    page.keyboard.press("Enter")
    page.locator("#notice:popover-open", has_text="tag").wait_for()
    assert page.text_content("#count") == "12 pictures"
    page.keyboard.press("Escape")
    page.wait_for_selector(".cell[data-index='2']:focus")
    for name in ("since", "until"):
        page.fill(f"input[name={name}]", "2026-01-01")
    page.get_by_role("button", name="Remove the filter from 2026-01-01").click()
    assert (page.input_value("input[name=since]"), page.input_value("input[name=until]")) == ("", "2026-01-01")


def test_at_the_top_pictures_appear_however_many(site: Served, seen: Seen) -> None:
    page = seen.page(site)
    for part, numbers in (("b", range(12, 50)), ("c", range(50, 90))):
        draw(site.folder, numbers, part)
        wait_for_text(page, "#count", f"{numbers.stop} pictures")
        page.locator(f".cell[data-index='0'][aria-label*='number {numbers.stop - 1}']").wait_for()
    assert focused(page) == "0"
    page.keyboard.press("ArrowRight")
    held = page.get_attribute(".cell:focus", "data-id")
    draw(site.folder, range(90, 140), "d")
    page.get_by_role("button", name="Show 50 new pictures").wait_for()
    assert page.get_attribute(".cell:focus", "data-id") == held, "the one that somebody is at stays in view"
