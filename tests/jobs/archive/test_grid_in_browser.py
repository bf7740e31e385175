"""The page of a grid in a real Chromium, opened from the disk: axes, cells, records, and nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from manifest_rows import done_of, write_part
from PIL import Image

from jobs.archive import grid_html, grid_png
from jobs.archive.grid import grid_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert('2')"> & 日没"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.mark.parametrize("inside", [grid_html.MAX_INSIDE, 1])
def test_axes_are_chosen_and_a_click_shows_the_record(
    inside: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import sync_playwright

    monkeypatch.setattr(grid_png, "hides_prompt", lambda output_dir, path: False)
    monkeypatch.setattr(grid_html, "MAX_INSIDE", inside)
    rows = [
        done_of(n, steps=n % 2 + 1, guidance_scale=float(n // 2 % 2), seed=1, prompt=f"{HOSTILE}{n // 4}")
        for n in range(7)
    ]
    write_part(tmp_path, "a", rows)
    (tmp_path / "study").mkdir()
    for row in rows:
        Image.new("RGB", (64, 64), (row["steps"] * 90, 0, 0)).save(tmp_path / str(row["path"]))
    file = grid_html.write_grid_page(grid_of(tmp_path), tmp_path, tmp_path / "page.html", HOSTILE)
    requests: list[str] = []
    faults: list[str] = []
    with sync_playwright() as playwright:
        # As root, which is what CI is, Chromium needs --no-sandbox.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(file.as_uri())
        assert page.locator("thead th[scope=col]").all_inner_texts() == ["steps 1", "steps 2"]
        assert page.locator("tbody th").all_inner_texts() == ["guidance_scale 0", "guidance_scale 1"]
        loaded = "images => images.every(one => one.complete && one.naturalWidth === 64)"
        page.locator("td img").last.scroll_into_view_if_needed()
        page.wait_for_function(f"({loaded})([...document.querySelectorAll('td img')])")
        page.locator("#axes select").nth(2).select_option("1")
        assert page.locator("td img").count() == 3 and page.locator("td.empty").inner_text() == "no image"
        page.locator("#axes select").first.select_option(label="prompt")
        assert page.locator("thead th[scope=col]").all_inner_texts() == [f"{HOSTILE}0", f"{HOSTILE}1"]
        page.locator("td button").first.focus()
        page.keyboard.press("Enter")
        record = page.locator("dialog[open] dd").all_inner_texts()
        assert f"{HOSTILE}0" in record and rows[0]["image_id"] in record
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        chromium.close()
    assert faults == [] and not [url for url in requests if not url.startswith(("file:", "data:"))]


def test_a_click_shows_the_file_itself_and_its_thumbnail_when_it_has_gone(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    write_part(tmp_path, "a", [done_of(0, path="a #1/b.png", width=300, height=300)])
    image = tmp_path / "a #1" / "b.png"
    image.parent.mkdir()
    Image.new("RGB", (300, 300), (90, 0, 0)).save(image)
    file = grid_html.write_grid_page(grid_of(tmp_path), tmp_path, tmp_path / "page.html", "t")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for expected in (300, 256):
            page = chromium.new_page()
            page.goto(file.as_uri())
            page.locator("td button").click()
            page.wait_for_function(f"document.querySelector('dialog img').naturalWidth === {expected}", timeout=30_000)
            image.unlink(missing_ok=True)
        chromium.close()
