"""The `hub:` settings, checked: what Darkroom may do on the network, and which servers it uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.hubs.remote_models import TOKENS, Hub

PUBLIC_URLS: dict[Hub, str] = {"huggingface": "https://huggingface.co", "civitai": "https://civitai.com"}

HOSTS: dict[Hub, tuple[str, ...]] = {
    # The hub's own advice for firewalls (its guide "Downloading models") is these two wildcards.
    "huggingface": ("huggingface.co", ".huggingface.co", ".hf.co"),
    # Files lie with Cloudflare R2, under CivitAI's account there, or with Backblaze B2 (reliability.md 3.2, trap 8).
    "civitai": (
        "civitai.com", ".civitai.com", "civitai.red", ".civitai.red", ".backblazeb2.com",
        ".5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com",
    ),
}  # fmt: skip
"""Where a hub's answers may lead, over https only. With a dot in front: any host below it."""

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class HubSettings:
    """The `hub:` section. By default no token is sent and nothing is downloaded.

    `auto_download` lets a run fetch what it lacks. `allow_token` sends the token in `HF_TOKEN` or `CIVITAI_TOKEN` to
    that hub's own address. `proxy` is an `http://`, `https://` or `socks5://` URL, through which everything then goes,
    names of hosts included; no proxy is taken from the environment. `huggingface_url` and `civitai_url` are mirrors,
    which are trusted as given: plain http and this machine are allowed there. Raises `ConfigError` for what is no URL.
    """

    auto_download: bool = False
    allow_token: bool = False
    proxy: str | None = None
    huggingface_url: str | None = None
    civitai_url: str | None = None

    def __post_init__(self) -> None:
        faults = [
            *_faults("hub.proxy", self.proxy, PROXY_SCHEMES, may_hold_user=True),
            *_faults("hub.huggingface_url", self.huggingface_url, ("https", "http")),
            *_faults("hub.civitai_url", self.civitai_url, ("https", "http")),
        ]
        if self.huggingface_url is None:
            faults += _faults("HF_ENDPOINT", os.environ.get("HF_ENDPOINT") or None, ("https", "http"))
        if faults:
            raise ConfigError(faults)

    def url_of(self, hub: Hub) -> str:
        """The address of a hub without a slash at its end: as set, else by `HF_ENDPOINT`, else the public one."""
        chosen = self.civitai_url if hub == "civitai" else self.huggingface_url or os.environ.get("HF_ENDPOINT")
        return (chosen or PUBLIC_URLS[hub]).rstrip("/")

    def token_of(self, hub: Hub) -> str | None:
        """The user's token for a hub, None unless `allow_token` is set. Nothing else in Darkroom reads tokens."""
        return (os.environ.get(TOKENS[hub]) or "").strip() or None if self.allow_token else None


def is_allowed_host(hub: Hub, host: str) -> bool:
    """Whether a hub's answers may lead to this host (in small letters, without a dot at its end)."""
    return any(host.endswith(one) if one.startswith(".") else host == one for one in HOSTS[hub])


def fault_of_url(url: str, schemes: tuple[str, ...], may_hold_user: bool = False) -> str | None:
    """What is wrong with a URL that the user gave; the text does not repeat the URL, which may contain a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"is no URL; expected {schemes[0]}://host or {schemes[0]}://host:port"
    sound = parts.scheme in schemes and parts.hostname and port != 0 and url.isascii() and url.isprintable()
    if not sound or " " in url or parts.query or parts.fragment:
        return f"expected {', '.join(f'{scheme}://' for scheme in schemes)} and a host, nothing behind it"
    if not may_hold_user and "@" in parts.netloc:
        return "holds a user name or password, which would be sent to the hub; leave it out"
    return None


def _faults(key: str, url: str | None, schemes: tuple[str, ...], may_hold_user: bool = False) -> list[str]:
    fault = None if url is None else fault_of_url(url, schemes, may_hold_user)
    if url is None or fault is None:
        return []
    return [f"{key}: {fault}" if "@" in url else f"{key} {url[:80]!r}: {fault}"]
