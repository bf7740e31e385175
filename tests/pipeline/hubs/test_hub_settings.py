"""The `hub:` section: what it allows by default, and what it refuses."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.hubs.hub_settings import HubSettings, is_allowed_host


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def test_by_default_the_public_hubs_are_asked_and_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = HubSettings()
    assert (settings.url_of("huggingface"), settings.url_of("civitai")) == (
        "https://huggingface.co",
        "https://civitai.com",
    )
    assert settings.token_of("huggingface") is None
    assert not settings.auto_download and settings.proxy is None


def test_a_token_is_read_only_where_the_user_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    monkeypatch.delenv("CIVITAI_TOKEN", raising=False)
    settings = HubSettings(allow_token=True)
    assert settings.token_of("huggingface") == "hf_secret"
    assert settings.token_of("civitai") is None


def test_mirrors_come_from_the_settings_and_then_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert HubSettings().url_of("huggingface") == "https://mirror.example/hub"
    assert HubSettings(huggingface_url="http://127.0.0.1:8000/").url_of("huggingface") == "http://127.0.0.1:8000"
    assert HubSettings(civitai_url="https://civitai.red").url_of("civitai") == "https://civitai.red"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"huggingface_url": "huggingface.co"}, "hub.huggingface_url 'huggingface.co': expected https://, http://"),
        ({"huggingface_url": "ftp://huggingface.co"}, "hub.huggingface_url"),
        ({"civitai_url": "https://"}, "hub.civitai_url"),
        ({"civitai_url": "https://civitai.com/?token=1"}, "nothing behind it"),
        ({"civitai_url": "https://me:secret@civitai.com"}, "hub.civitai_url: holds a user name or password"),
        ({"civitai_url": "https://[::1"}, "hub.civitai_url 'https://[::1': is no URL"),
        ({"civitai_url": "https://civitai.com:99999"}, "hub.civitai_url 'https://civitai.com:99999': is no URL"),
        ({"civitai_url": "https://civitai .com"}, "hub.civitai_url"),
        ({"proxy": "127.0.0.1:9050"}, "hub.proxy '127.0.0.1:9050': expected http://, https://, socks5://, socks5h://"),
        ({"proxy": "socks4://127.0.0.1"}, "hub.proxy"),
    ],
)
def test_what_is_no_url_is_refused_in_one_line(settings: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HubSettings(**settings)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_fault_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    with pytest.raises(ConfigError) as caught:
        HubSettings(proxy="x", civitai_url="y")
    assert [fault.split(" ")[0] for fault in caught.value.faults] == ["hub.proxy", "hub.civitai_url", "HF_ENDPOINT"]


def test_a_proxy_may_hold_a_password_which_no_message_repeats() -> None:
    assert HubSettings(proxy="socks5h://me:secret@127.0.0.1:9050").proxy
    with pytest.raises(ConfigError) as caught:
        HubSettings(proxy="gopher://me:secret@127.0.0.1:9050")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("huggingface.co", True),
        ("cdn-lfs.huggingface.co", True),
        ("cas-bridge.xethub.hf.co", True),
        ("cdn-lfs-us-1.hf.co", True),
        ("hf.co.evil.example", False),
        ("evilhf.co", False),
        ("evilhuggingface.co", False),
        ("huggingface.com", False),
        ("civitai.com", False),
        ("", False),
        ("127.0.0.1", False),
    ],
)
def test_only_hosts_of_the_hub_are_followed_to(host: str, allowed: bool) -> None:
    assert is_allowed_host("huggingface", host) is allowed


def test_another_customer_of_the_same_storage_is_no_host_of_the_hub() -> None:
    assert is_allowed_host("civitai", "civitai-prod.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com")
    assert is_allowed_host("civitai", "b2.civitai.com")
    assert not is_allowed_host("civitai", "civitai-prod.0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com")
