"""Licences are told by the names that hubs, cards and our own profiles write."""

from __future__ import annotations

import pytest

from pipeline.hubs.civitai_protocol import permissions
from pipeline.selection.licences import commercial_use

ALLOWED = (
    "apache-2.0", "Apache-2.0", "MIT", "openrail++", "OpenRAIL++-M", "CreativeML OpenRAIL-M", "cc-by-4.0",
    "CC BY SA 4.0", "cc0-1.0", "fair-ai-public-license-1.0-sd",
)  # fmt: skip
FORBIDDEN = (
    "cc-by-nc-4.0", "CC BY-NC-SA 4.0", "FLUX.1 [dev] Non-Commercial", "flux-1-dev-non-commercial-license",
    "Stability AI Community", "sai-nc-community", "Stability AI Non-Commercial Research Community",
)  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str) -> None:
    assert commercial_use(name) is True


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden_or_conditional(name: str) -> None:
    assert commercial_use(name) is False


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [(["Image", "RentCivit"], True), (["Sell"], True), (["RentCivit"], False), (["None"], False), ("None", False)],
)
def test_permissions_of_civitai(allowed: object, expected: bool) -> None:
    said = permissions({"allowCommercialUse": allowed, "allowDerivatives": False})
    assert commercial_use(said) is expected


def test_permissions_that_say_nothing_of_it_are_unknown() -> None:
    assert commercial_use(permissions({"allowNoCredit": False})) is None


@pytest.mark.parametrize("name", [None, "", "other", "ask me", "x" * 10_000, "\x00\x1b[31m", "include-nice-things"])
def test_unknown(name: str | None) -> None:
    assert commercial_use(name) is None
