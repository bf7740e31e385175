"""Records that anyone may have edited: refused in one line, or as good as ours wherever records go."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.archive.show import as_json, as_lines, as_row
from jobs.manifest.parts import table_from_rows
from jobs.manifest.rows import done_row
from jobs.manifest.schema import row_from_json, row_to_json
from pipeline.errors import ReadError
from pipeline.metadata.leaks import own_words
from pipeline.metadata.reading import describe_record, parse_record

KEPT = Path(__file__).parents[2] / "data" / "kept" / "outputs"
RECORDS = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(KEPT.glob("leaky/*.json"))]
"""Of an SD model with a LoRA: sidecars hold the whole record."""

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**53, 2**63, -(10**30), 10**400])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["os.system", "../x", "\x1b]0;x\x07", "9" * 50, "2026-11-29", "cuda", "Euler"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in nested JSON, the keys that lead to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*at, key), *places(inner, (*at, key)))]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_refused(number: str) -> None:
    edited = copy.deepcopy(RECORDS[0])
    edited["scheduler"]["config"]["steps_offset"] = float(number)
    with pytest.raises(ReadError, match=r"scheduler.*finite number"):
        parse_record(json.dumps(edited))


@given(st.data())
def test_an_edited_record_is_refused_in_one_line_or_is_one(data: st.DataObject) -> None:
    edited = copy.deepcopy(data.draw(st.sampled_from(RECORDS)))
    *path, last = data.draw(st.sampled_from(places(edited)))
    parent = edited
    for key in path:
        parent = parent[key]
    if data.draw(st.booleans()) or isinstance(parent, list):
        parent[last] = data.draw(values)
    elif data.draw(st.booleans()):
        del parent[last]
    else:
        parent[data.draw(st.text(max_size=8))] = data.draw(values)
    try:
        record = parse_record(json.dumps(edited))
    except ReadError as error:
        assert str(error).isprintable() and len(str(error)) < 1_000
        return
    row = row_from_json(row_to_json(done_row(record, "study/x.png", "0" * 64)))
    assert table_from_rows([row]).to_pylist()[0]["record_json"]
    description = describe_record(record)
    assert as_lines(description, {}) and as_json(description, {}) and as_row(Path("x.png"), description, {})
    assert all(isinstance(word, str) for word in own_words(record))
