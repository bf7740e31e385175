"""Answers of LLMs, kept: the same question to the same model is asked once.

A file that can be deleted at any time. It holds hashes of what was asked, not the prompts, and values of closed lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.selection.ollama.answers import VERSION, LlmAnswer, Question, read_answer, write_answer
from pipeline.storage.sqlite_files import CacheFile
from pipeline.storage.user_folders import cache_folder

MOST_ANSWERS = 100_000
"""The oldest go when there are more."""

_AT_ONCE = 500
"""Questions of one query: SQLite takes some thousands of values."""

_TABLES = (
    "answers (asked TEXT, model TEXT, version INTEGER, answer TEXT NOT NULL, PRIMARY KEY (asked, model, version))",
)


def answers_file() -> Path:
    """The file, in the user's cache folder."""
    return cache_folder() / "ollama-answers.sqlite"


def kept_answers(questions: Sequence[Question], digest: str) -> dict[Question, LlmAnswer]:
    """The answers that the model with this digest gave before, by question."""
    known: dict[Question, LlmAnswer] = {}
    for start in range(0, len(questions) if digest else 0, _AT_ONCE):
        asked = {_asked(question): question for question in questions[start : start + _AT_ONCE]}
        places = ", ".join("?" * len(asked))
        query = f"SELECT asked, answer FROM answers WHERE model = ? AND version = ? AND asked IN ({places})"
        for key, text in _file().rows(query, (digest, VERSION, *asked)):
            with suppress(ValueError, KeyError):  # not written by us
                known[asked[key]] = read_answer(str(text), asked[key].ranked)
    return known


def keep_answer(question: Question, digest: str, answer: LlmAnswer) -> None:
    """Keep an answer of the model with this digest; nothing of a model that the server gives none."""
    if digest:
        oldest = "SELECT rowid FROM answers ORDER BY rowid DESC LIMIT -1 OFFSET ?"
        _file().change(
            (
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)",
                (_asked(question), digest, VERSION, write_answer(answer)),
            ),
            (f"DELETE FROM answers WHERE rowid IN ({oldest})", (MOST_ANSWERS,)),
        )


def _asked(question: Question) -> str:
    return hashlib.sha256(question.to_json().encode()).hexdigest()


def _file() -> CacheFile:
    return CacheFile(answers_file(), *_TABLES)
