"""The server: on loopback only, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from jobs.gallery.access import Pass
from jobs.gallery.app import Gallery
from pipeline.errors import ConfigError, ReadError

HOST = "127.0.0.1"
"""Nothing else: other machines cannot ask."""

PACKAGES = ("starlette", "uvicorn", "jinja2")


def serve(
    output_dir: Path,
    port: int,
    *,
    may_make: bool,
    opens_browser: bool,
    told: Callable[[str], None],
) -> None:
    """Serve the gallery until Ctrl-C; `told` gets the lines to print. Port 0 is any free one.

    Raises `ReadError` without an output folder, `ConfigError` for a port that is taken or without the packages.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"the gallery needs {', '.join(missing)}; pip install 'darkroom[gallery]'")
    if not output_dir.is_dir():
        raise ReadError(f"{output_dir}: is no folder; name the one with the images with --output-dir")
    import uvicorn

    with _listening(port) as listening:
        own = Pass(listening.getsockname()[1])
        gallery = Gallery(output_dir, own, may_make=may_make)
        try:
            config = uvicorn.Config(
                gallery.app(),
                log_config=None,
                access_log=False,  # addresses hold what was searched for
                server_header=False,
                lifespan="off",
                ws="none",
                limit_concurrency=200,
                timeout_graceful_shutdown=2,
            )
            logging.getLogger("uvicorn").setLevel(logging.WARNING)
            server = uvicorn.Server(config)
            told(f"the gallery of {output_dir}: {own.link}")
            told("Ctrl-C ends it")
            if opens_browser:
                threading.Thread(target=webbrowser.open, args=(own.link,), daemon=True).start()
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # which uvicorn raises again when all is closed
            pass
        finally:
            gallery.close()


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror}; take another one, or 0 for any") from error
