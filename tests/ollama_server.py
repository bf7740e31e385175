"""An Ollama for tests: its routes as its source has them (`server/routes.go`, `api/types.go`), and their faults.

with OllamaServer() as ollama:
    ollama.models.append(OllamaModel("gemma3:4b"))
    ollama.answer = lambda chat: '{"subject": ["person"], ...}'      # the content of every answer
    ollama.server.fault("/api/chat", cut(20), times=1)               # as for the hubs, see hub_server.py
    ...                                                              # ollama.url is http://127.0.0.1:PORT
    assert ollama.server.paths() == ["/api/tags", ...]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from hub_server import HubServer, Reply, Request, json_reply

Chat = dict[str, Any]
"""The body of a request to `/api/chat`."""


@dataclass(frozen=True)
class Said:
    """One answer of a model."""

    content: str
    thinking: str | None = None
    done_reason: str = "stop"


@dataclass
class OllamaModel:
    """A model that the server has. `remote_host` is where it really runs; without `told` tags lack capabilities."""

    name: str
    parameter_size: str = "4.3B"
    capabilities: tuple[str, ...] = ("completion",)
    remote_host: str | None = None
    told: bool = True
    digest: str = ""

    def __post_init__(self) -> None:
        self.digest = self.digest or hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        return {
            "parent_model": "", "format": "gguf", "family": "gemma3", "families": ["gemma3"],
            "parameter_size": self.parameter_size, "quantization_level": "Q4_K_M",
        }  # fmt: skip

    @property
    def remote(self) -> dict[str, str]:
        return {"remote_host": self.remote_host, "remote_model": self.name} if self.remote_host else {}

    def listed(self) -> dict[str, Any]:
        """As `/api/tags` has it."""
        capabilities = {"capabilities": list(self.capabilities)} if self.told else {}
        return {
            "name": self.name, "model": self.name, "modified_at": "2026-08-01T10:00:00.123456789+02:00",
            "size": 3_300_000_000, "digest": self.digest, "details": self.details,
            **capabilities, **(self.remote if self.told else {}),
        }  # fmt: skip

    def shown(self) -> dict[str, Any]:
        """As `/api/show` has it."""
        return {
            "parameters": "stop \"<end_of_turn>\"\ntemperature 1", "template": "{{ .Prompt }}", "details": self.details,
            "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 131072},
            "capabilities": list(self.capabilities), **self.remote,
        }  # fmt: skip


@dataclass
class OllamaServer:
    """The server. `answer` makes the content of an answer; `stays` is how often a list shows an unloaded model yet."""

    answer: Callable[[Chat], str | Said] = lambda chat: "{}"
    models: list[OllamaModel] = field(default_factory=lambda: [OllamaModel("gemma3:4b")])
    stays: int = 0
    loaded: dict[str, int | None] = field(default_factory=dict)
    server: HubServer = field(default_factory=HubServer)

    def __enter__(self) -> Self:
        for method, path, handler in (
            ("GET", "/", lambda request: Reply(200, b"Ollama is running")),
            ("GET", "/api/version", lambda request: json_reply({"version": "0.30.5"})),
            ("GET", "/api/tags", lambda request: json_reply({"models": [one.listed() for one in self.models]})),
            ("GET", "/api/ps", self._running),
            ("POST", "/api/show", self._show),
            ("POST", "/api/chat", self._chat),
            ("POST", "/api/generate", self._generate),
        ):
            self.server.route(method, path, handler)
        self.server.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self.server.__exit__(*problem)

    @property
    def url(self) -> str:
        return self.server.url

    def chats(self) -> list[Chat]:
        """The bodies of all requests for an answer, without those that only load."""
        return [body for body in self.bodies("/api/chat") if body["messages"]]

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was sent to a path."""
        return [json.loads(request.body) for request in self.server.requests if request.path == path]

    def _named(self, request: Request) -> tuple[Chat, OllamaModel | None, Reply]:
        body = json.loads(request.body)
        name = body.get("model", "")
        found = next((one for one in self.models if name in (one.name, one.name.removesuffix(":latest"))), None)
        return body, found, json_reply({"error": f"model '{name}' not found"}, 404)

    def _running(self, request: Request) -> Reply:
        running = []
        for one in self.models:
            left = self.loaded.get(one.name, 0)
            if left is None or left > 0:
                running.append({
                    "name": one.name, "model": one.name, "size": 4_000_000_000, "digest": one.digest,
                    "details": one.details, "expires_at": "2026-08-01T10:05:00Z", "size_vram": 4_000_000_000,
                    "context_length": 4096,
                })  # fmt: skip
            if left is not None:
                self.loaded[one.name] = max(0, left - 1)
        return json_reply({"models": running})

    def _show(self, request: Request) -> Reply:
        _, model, missing = self._named(request)
        return missing if model is None else json_reply(model.shown())

    def _chat(self, request: Request) -> Reply:
        body, model, missing = self._named(request)
        if model is None:
            return missing
        self.loaded[model.name] = None
        if not body["messages"]:
            return self._finished(body, Said("", done_reason="load"))
        if body.get("think") and "thinking" not in model.capabilities:
            return json_reply({"error": f'"{model.name}" does not support thinking'}, 400)
        said = self.answer(body)
        return self._finished(body, said if isinstance(said, Said) else Said(said))

    def _generate(self, request: Request) -> Reply:
        body, model, missing = self._named(request)
        if model is None:
            return missing
        assert not body.get("prompt") and body["keep_alive"] == 0, "only for unloading"
        self.loaded[model.name] = self.stays
        return json_reply({
            "model": body["model"], "created_at": "2026-08-01T10:00:00Z", "response": "", "done": True,
            "done_reason": "unload",
        })  # fmt: skip

    def _finished(self, body: Chat, said: Said) -> Reply:
        thinking = {} if said.thinking is None else {"thinking": said.thinking}
        return json_reply({
            "model": body["model"], "created_at": "2026-08-01T10:00:00.5Z",
            "message": {"role": "assistant", "content": said.content, **thinking},
            "done": True, "done_reason": said.done_reason, "total_duration": 400_000_000, "eval_count": 40,
        })  # fmt: skip
