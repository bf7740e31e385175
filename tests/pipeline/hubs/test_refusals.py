"""What keeps a model from being downloaded is known before others are fetched in vain."""

from __future__ import annotations

from hub_civitai import Version
from hub_server import HubServer

from pipeline.hubs.refusals import would_be_refused
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.hubs.versions import version


def test_whether_a_login_is_asked_for_shows_before_anything_is_fetched(
    ink: Version, hub: HubServer, transport: Transport, weights: bytes
) -> None:
    described = version(transport, 102)
    assert isinstance(described, Ok)
    assert would_be_refused(described.value, transport) is None
    assert hub.requests[-1].header("Range") in (None, f"bytes={len(weights) - 1}-")
    ink.login = True
    assert would_be_refused(described.value, transport).kind == "needs_login"
    assert version(transport, 102).kind == "needs_login"  # from now on that is known
    ink.login, ink.early_access_until = False, "2099-01-01"
    assert would_be_refused(described.value, transport).kind == "early_access"
    hub.__exit__()
    assert would_be_refused(described.value, transport).kind == "offline"
