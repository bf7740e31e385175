"""Read the command line with Hydra, hand all composed configurations to `jobs`, return the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.batch import main
from jobs.trust import check_interpolations, check_trust
from pipeline.errors import ConfigError, DarkroomError

CONF = Path(__file__).resolve().parent / "conf"


def collect_configs() -> tuple[list[dict[str, Any]], list[Path]]:
    """Every configuration that the command line composes, as plain data, and the folders they came from.

    Nothing has been composed after `--help`, `--cfg` and the like: the list is then empty. Raises `ConfigError`.
    """
    configs: list[dict[str, Any]] = []
    folders: list[Path] = []
    faults: dict[str, None] = {}

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def collect(config: DictConfig) -> None:
        # Hydra would answer an exception with a traceback and its own exit code.
        try:
            check_interpolations(OmegaConf.to_container(config, resolve=False))
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except ConfigError as error:
            faults.update(dict.fromkeys(error.faults))
        except OmegaConfBaseException as error:
            faults[f"{error.full_key}: {(error.msg or str(error)).splitlines()[0]}"] = None
        else:
            assert isinstance(plain, dict)
            configs.append({str(key): value for key, value in plain.items()})
        if not folders:
            sources = HydraConfig.get().runtime.config_sources
            folders.extend(Path(source.path) for source in sources if source.schema == "file")

    try:
        collect()
    except SystemExit as stop:  # Hydra has said on stderr what it could not compose
        raise SystemExit(2 if stop.code else 0) from None
    if faults:
        raise ConfigError(list(faults))
    return configs, folders


def user_folders(arguments: list[str]) -> list[Path]:
    """The folders given with `--config-dir` or `-cd`, which Hydra would read next."""
    folders = []
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folders += [Path(value)] if value else [Path(folder) for folder in arguments[index + 1 : index + 2]]
    return folders


def run(arguments: list[str]) -> int:
    """The whole program; returns the exit code."""
    try:
        check_trust([CONF, *user_folders(arguments)], CONF / "config.yaml")
        configs, folders = collect_configs()
        return main(configs, folders) if configs else 0
    except DarkroomError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
