"""Finding images in the manifest: words in the prompt, tags or model name, SQL conditions over the columns, or both."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import reduce
from itertools import chain, islice
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.manifest.layout import Layout, command
from jobs.manifest.paging import PAGE_ROWS, stream_pages
from jobs.manifest.query import COLUMNS, stream
from jobs.manifest.schema import DONE, Feedback
from pipeline.errors import ConfigError, ReadError
from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation, Expression

DEFAULT_COLUMNS = ("created_at", "model", "steps", "seed", "path", "prompt")
DEFAULT_SORT = "-created_at"

Found = dict[str, Any]
"""One row, column by column; `created_at` is an aware UTC datetime."""


def search(
    output_dir: str | Path = DEFAULT_OUTPUT_DIR,
    text: str = "",
    where: str | None = None,
    columns: Sequence[str] = DEFAULT_COLUMNS,
    sort: str = DEFAULT_SORT,
    limit: int | None = None,
) -> Iterator[Found]:
    """The rows that match words and condition, also of running batches; they are read from disk while iterating.

    `text`: words that must all occur, in any case, in the prompt, the tags or the model's name. `where`: a
    DuckDB condition over the manifest's columns. Only `done` rows are searched unless `where` itself speaks
    of `status`. `columns` may be `("*",)`; `sort` names columns, separated by commas, each with `-` in front for
    descending order.

    Raises `ConfigError` for an unknown column or a condition that DuckDB refuses, `ReadError` without a manifest.
    """
    output_dir = Path(output_dir)
    chosen = COLUMNS if tuple(columns) == ("*",) else tuple(columns)
    orders = [one.strip() for one in sort.split(",")]
    if faults := unknown_columns(chosen, "--columns") + unknown_columns(
        [one.removeprefix("-") for one in orders], "--sort"
    ):
        raise ConfigError(faults)
    if not Layout(output_dir).root.is_dir():
        raise ReadError(f"{output_dir}: no manifest here; make images first, or name their folder with --output-dir")

    def select(images: DuckDBPyRelation) -> DuckDBPyRelation:
        import duckdb

        images = images.filter(reduce(and_, _conditions(text, where)))  # at once: each step is bound anew
        columns = [(duckdb.ColumnExpression(one.removeprefix("-")), one.startswith("-")) for one in orders]
        images = images.sort(*((one.desc() if down else one.asc()).nulls_last() for one, down in columns))
        return images if limit is None else images.limit(limit)

    def batches() -> Iterator[Sequence[tuple[Any, ...]]]:
        import duckdb

        fetched = [_fetchable(name) for name in chosen]
        feedback = _mentions_feedback(where or "", sort, *chosen)
        try:
            if "record_json" in chosen and (limit is None or limit > PAGE_ROWS):  # the other columns are small
                yield from stream_pages(output_dir, select, fetched, feedback=feedback)
            else:
                yield from stream(
                    output_dir, lambda found: select(found.view("images")).select(", ".join(fetched)), feedback=feedback
                )
        except duckdb.Error as error:
            raise ConfigError(_refusal(output_dir, where, error)) from error

    # The first are read now, so that what is wrong is known before anything is printed.
    rows = (_found(chosen, row) for batch in batches() for row in batch)
    return chain(list(islice(rows, 1)), rows)


def _conditions(text: str, where: str | None) -> list[Expression]:
    import duckdb

    conditions = [_word_occurs(word.lower()) for word in text.split()]
    if where is not None:
        # Parsed as one expression: a second statement, a UNION or a FROM cannot follow it.
        conditions.append(duckdb.SQLExpression(where))
    if where is None or not re.search(r"\bstatus\b", where, re.IGNORECASE):
        conditions.insert(0, duckdb.ColumnExpression("status") == duckdb.ConstantExpression(DONE))
    return conditions


def _mentions_feedback(*texts: str) -> bool:
    """Whether a column of `Feedback` occurs; a name in a text of a condition is taken for one, too."""
    names = "|".join(Feedback.__annotations__)
    return any(re.search(rf"\b({names})\b", text, re.IGNORECASE) for text in texts)


def _word_occurs(word: str) -> Expression:
    from duckdb import ColumnExpression, ConstantExpression, FunctionExpression

    tags = FunctionExpression("array_to_string", ColumnExpression("tags"), ConstantExpression("\n"))
    prompt, model, tags = (
        FunctionExpression("contains", FunctionExpression("lower", place), ConstantExpression(word))
        for place in (ColumnExpression("prompt"), ColumnExpression("model"), tags)
    )
    return prompt | model | tags


def _fetchable(name: str) -> str:
    # Fetching a TIMESTAMPTZ would need pytz; the connection's time zone is UTC, so a plain one says the same.
    return f"{name}::TIMESTAMP AS {name}" if name == "created_at" else name


def _found(columns: Sequence[str], row: Sequence[Any]) -> Found:
    values = dict(zip(columns, row, strict=True))
    if values.get("created_at") is not None:
        values["created_at"] = values["created_at"].replace(tzinfo=UTC)
    return values


def unknown_columns(names: Sequence[str], option: str) -> list[str]:
    """A line for each column that there is not, with those whose names are like it or hold it."""
    faults = []
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.7)
            near = near or [column for column in COLUMNS if name and name in column][:3]
            near = near or difflib.get_close_matches(name, COLUMNS, n=3, cutoff=0.5)
            listed = "--list-columns" if option == "--columns" else "darkroom search --list-columns"
            hint = f"did you mean {' or '.join(near)}?" if near else f"{listed} prints them all"
            faults.append(f"{option}: there is no column {name!r}; {hint}")
    return faults


def _refusal(output_dir: Path, where: str | None, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    if where is None:
        return f"the manifest cannot be searched: {reason}; run {command(output_dir, 'reindex')}"
    return f'--where {where!r} was refused: {reason}; write a condition over columns, such as "steps >= 16"'
