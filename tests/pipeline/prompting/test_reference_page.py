"""docs/choosing-reference.md shows the data files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.convention_tables import sections
from pipeline.prompting.conventions import CLOSED, texts
from pipeline.prompting.negatives import IGNORED, MOST_TOKENS

PAGE = (Path(__file__).parents[3] / "docs" / "choosing-reference.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("heading", sections())
def test_the_page_has_the_tables_of_the_data(heading: str) -> None:
    table = "\n".join(sections()[heading]())
    assert table.count("\n") > 2
    assert f"## {heading}\n" in PAGE
    below = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert table in below, "write it anew: python -m benchmarks.convention_tables"


def test_the_page_says_what_is_added_where() -> None:
    assert f"`{IGNORED}`" in PAGE
    assert MOST_TOKENS < 40
    assert texts(CLOSED, "sd15") == texts("", None)
