"""How hubs are reached: the same section for runs and for commands, and a proxy is never overlooked or told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.config.batch_config import parse_configs
from jobs.config.hub_access import hub_settings, settings_of_this_machine
from jobs.config.hub_section import Hub
from jobs.config.option_folders import shipped_folder
from pipeline.errors import ConfigError
from pipeline.hubs.hub_settings import HubSettings

SOUND: dict[str, Any] = {"prompts": {"lines": ["a"]}, "model": {"source": "demo"}, "memory": {"level": "none"}}
CONF = shipped_folder()
TOR = "socks5h://127.0.0.1:9050"


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder with the shipped first page."""
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    (tmp_path / "conf" / "local").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text((CONF / "config.yaml").read_text(encoding="utf-8"))
    return tmp_path / "conf"


def say_locally(conf: Path, text: str) -> None:
    (conf / "local" / "default.yaml").write_text(f"# @package _global_\n{text}")


def faults(*overrides: str, conf: Path = CONF) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings_of_this_machine(overrides, [conf])
    return list(caught.value.faults)


def test_the_shipped_page_downloads_nothing_and_tells_nothing() -> None:
    shipped = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["hub"]
    assert hub_settings(Hub(**shipped)) == HubSettings() == hub_settings(Hub())
    assert set(shipped) == set(Hub.model_fields)


def test_commands_take_the_local_file_and_then_the_command_line(conf: Path) -> None:
    say_locally(conf, f"output: {{dir: pictures}}\nhub:\n  proxy: {TOR}\n  allow_token: true\n")
    found = settings_of_this_machine((), [conf])
    assert (found.proxy, found.allow_token, found.auto_download) == (TOR, True, False)
    again = settings_of_this_machine(["hub.proxy=null", "hub.allow_token=false", "hub.auto_download=true"], [conf])
    assert (again.proxy, again.allow_token, again.auto_download) == (None, False, True)


def test_without_a_configuration_folder_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert settings_of_this_machine((), [tmp_path]) == HubSettings()


def test_a_local_proxy_may_stand_in_the_environment(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say_locally(conf, "hub: {proxy: 'http://me:${oc.env:PROXY_PASSWORD}@proxy.example:3128'}")
    monkeypatch.setenv("PROXY_PASSWORD", "secret")
    assert settings_of_this_machine((), [conf]).proxy == "http://me:secret@proxy.example:3128"
    monkeypatch.delenv("PROXY_PASSWORD")
    assert faults(conf=conf) == ["hub.proxy: the environment variable PROXY_PASSWORD is not set"]
    say_locally(conf, "hub: {proxy: '${oc.env:PROXY_PASSWORD,null}'}")
    assert settings_of_this_machine((), [conf]).proxy is None


def test_what_only_hydra_could_follow_is_refused_and_not_overlooked(conf: Path) -> None:
    say_locally(conf, "defaults: [tor]\n")
    assert "includes 'tor'" in faults(conf=conf)[0]
    say_locally(conf, "hub: {proxy: '${other.proxy}'}\n")
    assert "no other reference" in faults(conf=conf)[0]
    say_locally(conf, f"defaults: [{{override /memory: ultra}}, _self_]\nhub: {{proxy: '{TOR}'}}\n")
    assert settings_of_this_machine((), [conf]).proxy == TOR
    say_locally(conf, "hub: [1]\n")
    assert "must be a mapping" in faults(conf=conf)[0]
    say_locally(conf, "hub: {proxy: [\n")
    assert "cannot be read as YAML" in faults(conf=conf)[0]


def test_faults_are_lines_and_all_are_told() -> None:
    found = faults("hub.allow_token=maybe", "hub.proxi=1", "hub.civitai_url=ftp://mirror", "hub.proxy=9050")
    assert [line.partition(":")[0] for line in found] == [
        "hub.allow_token", "hub.proxy", "hub.civitai_url", "hub.proxi",
    ]  # fmt: skip
    assert found[1].endswith("(got '9050')") and "did you mean 'proxy'?" in found[3]
    assert faults("proxy=x") == ["proxy: expected hub.key=value, as in hub.auto_download=true"]


@pytest.mark.parametrize("proxy", ["htp://me:secret@h", ["http://me:secret@h"], "http://me:secret@h/?x=1"])
def test_a_password_is_not_repeated_by_a_fault(proxy: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_configs([{**SOUND, "hub": {"proxy": proxy}}])
    assert str(caught.value).startswith("hub.proxy: ") and "secret" not in str(caught.value)


def test_a_hubs_address_may_hold_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_configs([{**SOUND, "hub": {"civitai_url": "https://me:secret@mirror"}}])
    assert "would be sent to the hub" in str(caught.value) and "secret" not in str(caught.value)


def test_a_wrong_endpoint_of_the_environment_is_said_when_a_hub_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    assert parse_configs([SOUND])
    assert faults()[0].startswith("HF_ENDPOINT 'mirror'")


def test_a_sweep_has_one_way_to_the_hubs() -> None:
    with pytest.raises(ConfigError, match="hub: differs within the sweep") as caught:
        parse_configs([SOUND, {**SOUND, "hub": {"proxy": "http://me:secret@h"}}])
    assert "secret" not in str(caught.value)


def test_reports_of_runs_say_nothing_of_it(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from jobs.manifest.job_states import JobStates
    from jobs.planning.plan import Plan
    from jobs.running.loop import Result
    from jobs.running.main import validate
    from jobs.running.run_folder import RunFolder, head, summary

    config = {**SOUND, "hub": {"proxy": "http://me:secret@h"}, "output": {"dir": str(tmp_path)}}
    batch = validate([config], [])
    plan = Plan(batch.expansions, JobStates(), batch.plans)
    folder, now = RunFolder(tmp_path, "run"), datetime.now(UTC)
    folder.begin(batch.configs, head("run", now, "cpu", plan, None))
    folder.end(summary("run", plan, Result(), now, 0, None))
    folder.close()
    written = "".join(path.read_text() for path in (tmp_path / "runs" / "run").iterdir())
    assert "secret" not in written and "hub" not in yaml.safe_load((tmp_path / "runs/run/batch.yaml").read_text())
    assert json.loads((tmp_path / "runs/run/summary.json").read_text())["requested"] == 1
