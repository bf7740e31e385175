"""Take the pictures of docs/gallery.md: the galleries of two output folders, in a Chromium that is installed.

    python run.py 'seeds={start: 0, count: 6}' output.dir=outputs/postcards
    python run.py experiment=steps_vs_guidance 'seeds=[7,8]' output.dir=outputs/sweep
    python docs/gallery_screenshots.py outputs/postcards outputs/sweep docs/images

Needs `pip install 'darkroom[gallery,browser]'`. It rates a few of the images, as a person would.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright

WIDE, PHONE = {"width": 1200, "height": 760}, {"width": 390, "height": 780}


def main(postcards: Path, sweep: Path, folder: Path) -> None:
    """Write gallery-*.webp."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        with _gallery(postcards) as link:
            _shoot(browser, link, folder / "gallery-wall.webp", _rate)
            _shoot(browser, link, folder / "gallery-dark.webp", lambda page: None, dark=True)
            _shoot(browser, link, folder / "gallery-picture.webp", _open, dark=True)
            _shoot(browser, link, folder / "gallery-compare.webp", _compare)
            _shoot(browser, link, folder / "gallery-phone.webp", lambda page: None, phone=True)
        with _gallery(sweep) as link:
            _shoot(browser, link, folder / "gallery-grid.webp", _grid)
        browser.close()


@contextmanager
def _gallery(output_dir: Path) -> Iterator[str]:
    """The link to a gallery that is served meanwhile."""
    command = [sys.executable, "-m", "jobs", "gallery", "--output-dir", str(output_dir), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().rpartition(" ")[2].strip()
        finally:
            server.terminate()


def _shoot(
    browser: Browser, link: str, file: Path, prepare: Callable[[Page], None], *, dark: bool = False, phone: bool = False
) -> None:
    context = browser.new_context(
        viewport=PHONE if phone else WIDE, color_scheme="dark" if dark else "light", device_scale_factor=1
    )
    if not phone:
        context.add_init_script("localStorage.setItem('size', '136')")
    page = context.new_page()
    page.goto(link)
    page.wait_for_selector(".cell.loaded")
    page.wait_for_selector("#filters .value", state="attached")
    prepare(page)
    page.wait_for_timeout(3000)  # thumbnails, counts of ratings
    with PIL.Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(file, "WEBP", quality=80, method=6)
    context.close()


def _rate(page: Page) -> None:
    for key in ("5", "ArrowRight", "4", "ArrowRight", "ArrowRight", "p", "ArrowDown", "x", "ArrowRight", "3"):
        page.keyboard.press(key)
        page.wait_for_timeout(150)


def _open(page: Page) -> None:
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#viewer .command")


def _compare(page: Page) -> None:
    for key in ("Space", "ArrowRight", "Space", "ArrowDown", "Space", "c"):
        page.keyboard.press(key)
    page.wait_for_selector("#compare[open] table")


def _grid(page: Page) -> None:
    page.keyboard.press("End")  # the first of all prompts and seeds
    page.keyboard.press("g")
    page.wait_for_selector("#cells .cell.loaded")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
