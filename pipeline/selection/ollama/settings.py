"""The `ollama:` settings, checked: which server, which model, how long to wait."""

from __future__ import annotations

import importlib.util
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.hubs.hub_settings import fault_of_url

DEFAULT_HOST = "http://127.0.0.1:11434"
"""Where Ollama listens unless it is told otherwise."""

_PORT = 11434

TIMEOUT_S = 60.0
"""Seconds that one answer may take."""


@dataclass(frozen=True, slots=True)
class OllamaSettings:
    """Which Ollama is asked. By default the one on this machine, and a small local model that it has.

    `host` is an address such as `gpu-box:11434` or `https://llm.example.org`; without a port it is 11434, of https 443.
    `OLLAMA_HOST` is not read, since prompts would follow it to another machine. `model` is a name as `ollama list`
    shows it. `timeout_s` is how long one answer may take; loading a model may take five times that. `allow_remote`
    permits models that the server itself asks for elsewhere. Raises `ConfigError` for what is no address.
    """

    host: str | None = None
    model: str | None = None
    timeout_s: float = TIMEOUT_S
    allow_remote: bool = False

    def __post_init__(self) -> None:
        host = self.host or DEFAULT_HOST
        if "@" in host:
            raise ConfigError("selection.ollama.host: holds a user name or password, which are not sent; leave it out")
        if fault := fault_of_url(_with_scheme(host), ("http", "https")):
            raise ConfigError(f"selection.ollama.host {host[:80]!r}: {fault}; for instance 127.0.0.1:11434")

    @property
    def address(self) -> str:
        """The server's address with scheme and port."""
        parts = urlsplit(_with_scheme(self.host or DEFAULT_HOST))
        port = parts.port or (443 if parts.scheme == "https" else _PORT)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"

    @property
    def is_here(self) -> bool:
        """Whether the server is on this machine, so that it shares the device."""
        host = urlsplit(self.address).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def is_installed() -> bool:
    """Whether the package is there through which Ollama is asked; imports nothing."""
    return importlib.util.find_spec("ollama") is not None


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"http://{host}"
