"""What requests tell Ollama: each kind of request, where it goes, and when."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.version import VERSION

HEADERS = (
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("User-Agent", f"darkroom/{VERSION}"),
    ("Accept-Encoding", "identity"),
)
"""All that a request carries beside `Host` and the length of its body; never a key, whatever the environment holds."""

WHERE = "this machine, unless selection.ollama.host names another"


@dataclass(frozen=True, slots=True)
class OllamaRequest:
    """A kind of request and what it tells the server."""

    method: str
    path: str
    what: str
    tells: str


REQUESTS = (
    OllamaRequest("GET", "/api/tags", "which models there are", "nothing"),
    OllamaRequest("POST", "/api/show", "what a model can do, and where it runs", "the name of the model"),
    OllamaRequest(
        "POST", "/api/chat", "loading a model; reading a prompt",
        "a prompt without what it excludes and what is to be written; names of the models to choose from, with a line "
        "of their cards",
    ),
    OllamaRequest("POST", "/api/generate", "unloading a model", "the name of the model"),
    OllamaRequest("GET", "/api/ps", "whether it is unloaded", "nothing"),
)  # fmt: skip
"""Every kind of request that there is."""
