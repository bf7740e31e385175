"""A gallery that is served on loopback in this process, and what a browser would ask of it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.gallery.access import Pass
from jobs.gallery.app import Gallery
from jobs.gallery.serving import _listening


@dataclass
class Served:
    """A running gallery; `get` and `post` carry the cookie unless told otherwise."""

    gallery: Gallery
    own: Pass
    cookie: str = ""
    folder: Path = field(default_factory=Path)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.own.port, timeout=20)
        given = {"Cookie": self.cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, body, {name: value for name, value in given.items() if value is not None})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> tuple[int, Any]:
        status, _, content = self.ask("GET", path, **headers)
        return status, json.loads(content)

    def post(self, path: str, values: Any, **headers: str | None) -> tuple[int, Any]:
        own: dict[str, str | None] = {"Content_Type": "application/json", "Origin": f"http://{self.own.hosts[0]}"}
        status, _, content = self.ask("POST", path, json.dumps(values).encode(), **(own | headers))
        return status, json.loads(content) if content.startswith(b"{") else content

    def rows(self, query: str = "") -> list[dict[str, Any]]:
        """The pictures that a query finds, in order."""
        _, view = self.get(f"/api/view?{query}")
        return list(self.get(f"/api/page?view={view['view']}&start=0&count=500")[1]["rows"])

    def until(self, condition: Any) -> None:
        """Wait until something is so."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "it did not come to be"
            time.sleep(0.05)


@contextmanager
def served(output_dir: Path, *, may_make: bool = False) -> Iterator[Served]:
    import uvicorn

    with _listening(0) as listening:
        own = Pass(listening.getsockname()[1])
        gallery = Gallery(output_dir, own, may_make=may_make)
        server = uvicorn.Server(
            uvicorn.Config(gallery.app(), log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            one = Served(gallery, own, folder=output_dir)
            one.until(lambda: server.started and gallery.index.is_complete)
            _, headers, _ = one.ask("GET", own.link.partition(own.hosts[0])[2])
            one.cookie = headers["set-cookie"].partition(";")[0]
            yield one
        finally:
            server.should_exit = True
            thread.join()
            gallery.close()
