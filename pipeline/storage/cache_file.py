"""What is remembered from run to run about this machine, in a file that nothing depends on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.storage.user_folders import cache_folder, make_folder

Values = Sequence[str | int | float]


class CacheFile:
    """One table of `memory.sqlite` in the user's cache folder, or of the file at `path`.

    Where the file is missing, damaged or cannot be written, nothing is known and nothing kept; no error is raised.
    """

    def __init__(self, path: Path | None, table: str) -> None:
        """`table` is its name and columns, as `CREATE TABLE` takes them."""
        self._path = path or cache_folder() / "memory.sqlite"
        self._table = table

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """What a query finds. The values in it may be anything: other versions wrote the file, too."""
        try:
            where = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(where, uri=True, timeout=10)) as connection:
                return connection.execute(query, values).fetchall()
        except (OSError, sqlite3.Error):  # not there yet, unreadable or damaged
            return []

    def change(self, *statements: tuple[str, Values]) -> None:
        """Carry out statements with their values, all or none."""
        try:
            make_folder(self._path.parent, cache_folder())
            with closing(sqlite3.connect(self._path, timeout=10)) as connection, connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table}")
                for statement, values in statements:
                    connection.execute(statement, values)
        except (OSError, sqlite3.Error):  # a read-only or damaged cache costs what it would have told, not the run
            return
