"""Texts that a record can hold: all but control characters, of which tabs and line breaks are allowed."""

from __future__ import annotations

from hypothesis import strategies as st


def texts(max_size: int, min_size: int = 0) -> st.SearchStrategy[str]:
    allowed = st.characters(exclude_categories=["Cc", "Cs"], include_characters="\t\n\r")
    return st.text(allowed, min_size=min_size, max_size=max_size)
