"""Speaks with Ollama, through its Python package.

The package by itself waits for ever, follows redirects and the environment's proxies, sends `OLLAMA_API_KEY` to any
host, reads answers of any size, and lets faults out as six types of error. Here, and in `wire.py` below it, it does
none of that. Beside the hubs' modules these are the only ones that open connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx
import ollama

from pipeline.errors import OllamaUnavailable
from pipeline.selection.ollama.wire import TooLarge, Wire
from pipeline.storage.foreign_names import plain

SHORT_S = 10.0
"""For what a server answers at once: its lists, and that it will unload."""

LOADING_TIMES = 5
"""Loading a large model is silent for minutes: it may take so many times as long as an answer."""

KEEP_ALIVE = "5m"
"""Between two prompts; the model is unloaded when all are read."""

OPTIONS: Mapping[str, float | int] = {"temperature": 0, "seed": 1, "num_ctx": 4096, "num_predict": 400}
"""The same with every request: one that differs in a load option makes the server load the model again."""

_FAULTS = (
    ollama.ResponseError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpcore.NetworkError,
    httpcore.TimeoutException, httpcore.ProtocolError, OSError, ValueError, AttributeError, TypeError, LookupError,
    RecursionError,
)  # fmt: skip
"""All that the package lets out for what a server may do: pydantic's and json's errors are `ValueError`s."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One answer: its text, what the model thought before it, and whether it ended by itself."""

    content: str
    thinking: str
    ended: bool


class OllamaClient:
    """One server. Every method raises `OllamaUnavailable`, and nothing else, for whatever goes wrong."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._wire = Wire(timeout_s)
        self._client = _Package(host=address, trust_env=False, follow_redirects=False, transport=self._wire)

    def close(self) -> None:
        """End all connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def models(self) -> list[Mapping[str, Any]]:
        """What the server says of each of its models, unchecked: the package drops where a model runs."""
        with self._plain_faults(min(SHORT_S, self._timeout_s)):
            return [dict(one) for one in self._client.raw("GET", "/api/tags")["models"]]

    def describe(self, model: str) -> Mapping[str, Any]:
        """What the server says of one model, unchecked."""
        with self._plain_faults(min(SHORT_S, self._timeout_s)):
            return self._client.raw("POST", "/api/show", model=model)

    def loaded(self) -> set[str]:
        """The names of the models that are in memory."""
        with self._plain_faults(min(SHORT_S, self._timeout_s)):
            running = self._client.ps().models
            return {name for one in running for name in (one.model, one.name) if name}

    def load(self, model: str) -> None:
        """Load a model; returns when it is in memory."""
        with self._plain_faults(self._timeout_s * LOADING_TIMES):
            self._client.chat(model, [], options=OPTIONS, keep_alive=KEEP_ALIVE, stream=False)

    def unload(self, model: str) -> None:
        """Ask the server to unload a model; it answers before the memory is free."""
        with self._plain_faults(min(SHORT_S, self._timeout_s)):
            self._client.generate(model, "", options=OPTIONS, keep_alive=0, stream=False)

    def chat(
        self, model: str, messages: Sequence[Mapping[str, str]], schema: dict[str, Any], *, think: bool | None
    ) -> Chat:
        """One answer, bound to a JSON schema as far as the server does that; `think` None leaves it to the model."""
        with self._plain_faults(self._timeout_s):
            answer = self._client.chat(
                model, messages, format=schema, think=think, options=OPTIONS, keep_alive=KEEP_ALIVE, stream=False
            )
            said = answer.message
            return Chat(said.content or "", said.thinking or "", answer.done_reason != "length")

    @contextmanager
    def _plain_faults(self, longest_s: float) -> Iterator[None]:
        self._wire.longest_s = longest_s
        try:
            yield
        except _FAULTS as error:
            what, quoted = _in_words(error, longest_s)
            said = f": {quoted}" if quoted else ""
            raise OllamaUnavailable(f"Ollama at {self._address} {what}{said}", f"Ollama {what}") from error


class _Package(ollama.Client):
    def raw(self, method: str, path: str, **body: Any) -> Mapping[str, Any]:
        """An answer as it came: the typed ones lack `remote_host`, `remote_model` and `capabilities`."""
        sent = {"json": body} if body else {}
        answer = self._request_raw(method, path, **sent).json()  # type: ignore[no-untyped-call]
        if not isinstance(answer, dict):
            raise TypeError(f"expected an object from {path}")
        if answer.get("error"):
            raise ollama.ResponseError(plain(answer["error"]))
        return answer


def _in_words(error: Exception, waited_s: float) -> tuple[str, str]:
    """What went wrong in our words, and what the server said of it in its own, as one short line."""
    if isinstance(error, httpcore.ConnectTimeout | httpcore.ConnectError):
        return "does not answer; is it running? (ollama serve)", ""
    if isinstance(error, httpcore.TimeoutException):
        return f"did not answer within {waited_s:g} s", ""
    if isinstance(error, TooLarge):
        return f"sent an answer that is too large ({error})", ""
    if isinstance(error, ollama.ResponseError):
        if 300 <= error.status_code < 400:
            return "wants to send us to another address, which is not followed", ""
        code = f" {error.status_code}" if error.status_code > 0 else ""
        text = plain(error.error)
        return f"answered with error{code}", "a web page" if text.lstrip().startswith("<") else text
    if isinstance(error, httpx.HTTPError | httpcore.NetworkError | httpcore.ProtocolError | OSError):
        return "broke off its answer", plain(str(error), 100)
    return "sent what is no answer of Ollama's", ""
