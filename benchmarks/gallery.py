"""The gallery over 1,000,000 rows in 40 parts: what its server answers to a page, from request to the whole answer.

First page: the view of all pictures and its first hundred rows. A facet: the counts of all facets, divided by how many
there are, while one of them is chosen. A word: the view of a word and its first hundred rows. Nothing is kept from one
round to the next: each has another value or word, or the index counts as changed. Median of five. The making of the
index and its size are told beside.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.measuring import MEGABYTE, Row, Scale, answer, in_child, peak_rss_bytes

ROWS = 1_000_000
PARTS = 40
ROUNDS = 5

FIRST_PAGE_S, FACET_S, WORD_S = 0.3, 0.3, 0.5


def measure(scale: Scale) -> Iterator[Row]:
    """Seconds of what a page asks for first, of a facet, and of a word."""
    from benchmarks.manifests import write_searchable

    rows = scale.of(ROWS)
    folder = scale.new_folder("gallery")
    write_searchable(folder, rows, scale.of(PARTS))
    found = in_child("gallery", folder)
    note = (
        f"index made in {found['index_s']:.1f} s, {found['index_bytes'] / MEGABYTE:,.0f} MB; first pictures after "
        f"{found['first_s']:.1f} s; opened again in {found['opened_s']:.2f} s; "
        f"peak memory {found['peak_rss_bytes'] / MEGABYTE:,.0f} MB"
    )
    yield Row("gallery.first_page", f"gallery, {rows:,} rows: the first page", found["page_s"], "s", FIRST_PAGE_S, note)
    yield Row(
        "gallery.facet",
        f"gallery, {rows:,} rows: a facet",
        found["facets_s"] / found["facets"],
        "s",
        FACET_S,
        f"all {found['facets']} of a page {found['facets_s']:.2f} s",
    )
    yield Row("gallery.word", f"gallery, {rows:,} rows: a word", found["word_s"], "s", WORD_S)
    yield Row(
        "gallery.deep_page",
        f"gallery, {rows:,} rows: a hundred from the middle",
        found["deep_s"],
        "s",
        note="of a view",
    )


def child(folder: Path) -> None:
    """Make the index of a folder, and ask it what a page asks."""
    import duckdb  # noqa: F401
    import pyarrow  # noqa: F401

    from jobs.gallery.filters import FACETS, Filter
    from jobs.gallery.index import Index
    from jobs.gallery.views import Views
    from pipeline.storage.user_folders import cache_folder

    started = time.perf_counter()
    index = Index(folder)
    making = threading.Thread(target=index.refresh)
    making.start()
    while not index.pictures_version and making.is_alive():
        time.sleep(0.01)
    first_s = time.perf_counter() - started
    making.join()
    made_s = time.perf_counter() - started
    index.close()
    started = time.perf_counter()
    index = Index(folder)
    index.refresh()
    opened_s = time.perf_counter() - started
    views = Views(index)

    def timed(ask: Callable[[int], object]) -> float:
        seconds = []
        for number in range(ROUNDS):
            index.pictures_version += 1
            begun = time.perf_counter()
            ask(number)
            seconds.append(time.perf_counter() - begun)
        return median(seconds)

    words = ("castle", "sunset", "woodcut", "neon", "valley")
    steps = ("4", "8", "20", "28", "30")
    view = views.view(Filter())
    answer(
        page_s=timed(lambda _: views.page(views.view(Filter()), 0, 100)),
        facets_s=timed(lambda number: views.facets(Filter(facets={"steps": (steps[number],)}))),
        word_s=timed(lambda number: views.page(views.view(Filter(words=(words[number],))), 0, 100)),
        deep_s=timed(lambda number: views.page(view, len(view.numbers) // 2 + 1000 * number, 100)),
        facets=len(FACETS),
        index_s=made_s,
        first_s=first_s,
        opened_s=opened_s,
        index_bytes=sum(file.stat().st_size for file in (cache_folder() / "gallery").rglob("*.duckdb*")),
        peak_rss_bytes=peak_rss_bytes(),
    )


if __name__ == "__main__":
    child(Path(sys.argv[1]))
