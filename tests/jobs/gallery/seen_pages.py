"""Pages of a gallery in a real Chromium, and what they must not do: ask elsewhere, or fail."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from served_gallery import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, which is what CI is, Chromium needs --no-sandbox.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Seen:
    """Pages of one test: where they sent requests, and what went wrong in them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.requests: list[str] = []
        self.faults: list[str] = []

    def page(self, site: Served, query: str = "", **options: Any) -> Page:
        context = self._browser.new_context(**{"viewport": {"width": 1000, "height": 700}, **options})
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.goto(site.own.link)
        page.wait_for_url("**/")
        if query:
            page.goto(f"http://{site.own.hosts[0]}/?{query}")
        page.wait_for_selector(".cell[data-id], #empty:not([hidden])")
        return page


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    """Fails the test for any request to elsewhere and any error of a script."""
    one = Seen(browser)
    yield one
    for context in browser.contexts:
        context.close()
    assert one.requests and not [url for url in one.requests if not url.startswith("http://127.0.0.1:")]
    assert one.faults == []


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.dataset.index ?? document.activeElement.id"))


def wait_for_text(page: Page, selector: str, text: str) -> None:
    page.locator(f"{selector}:text-is('{text}')").wait_for(state="attached")


class Overtaken:
    """Holds back the first answer to a path until `come`, so that answers to later questions come before it."""

    def __init__(self, page: Page, path: str) -> None:
        self._page = page
        self._path = path
        self._held: Route | None = None
        page.route(f"**{path}*", self._hold, times=1)

    def _hold(self, route: Route) -> None:
        self._held = route

    def come(self) -> None:
        end = time.monotonic() + 20
        while self._held is None:
            assert time.monotonic() < end, f"{self._path} was not asked for"
            self._page.wait_for_timeout(10)  # lets the question reach _hold
        with self._page.expect_response(f"**{self._path}*") as answer:
            self._held.continue_()
        answer.value.finished()
        self._page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
