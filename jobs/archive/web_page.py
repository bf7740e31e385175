"""Pages that open from the disk without network: scripts and styles inside, allowed by their hashes and no others."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.terminal import printable


def escaped(text: object) -> str:
    """Text as HTML shows it, also within an attribute; control characters become U+FFFD."""
    return html.escape(printable(str(text)), quote=True)


def script_json(value: Any) -> str:
    """JSON within a script element: no text can end it or begin a comment, and older engines read it as JavaScript."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_FILES = " file: 'self'"
"""What a policy says of other files: `file:` where the page is opened from the disk, `'self'` where it is served."""


def page(
    title: str,
    body: str,
    style: str,
    scripts: Sequence[str] = (),
    *,
    image_files: bool = False,
    script_file: bool = False,
) -> str:
    """A whole page. `image_files`: it shows files by relative links; `script_file`: one script lies beside it."""
    images = f"data:{_FILES if image_files else ''}"
    policy = f"default-src 'none'; img-src {images}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    if scripts or script_file:
        policy += f"; script-src {' '.join(map(_hash, scripts))}{_FILES if script_file else ''}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body>\n</html>\n"
    )


def read_beside(name: str) -> str:
    """A script or style sheet of this folder."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
