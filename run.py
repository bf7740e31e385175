"""Hydra reads the command line, `jobs` does the rest. Imports are within functions: workers import this file, too."""

import _signal as signal  # type: ignore[import-not-found]  # `signal` around it takes 5 ms to import

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until run() can answer, Ctrl-C ends this without a traceback

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def collect_configs(folders: list[Path], own: list[Path]) -> tuple[list[dict[str, Any]], list[str | None]]:
    """Every configuration composed, as plain data (none for `--help` and the like), and the places of their prompts."""
    import hydra
    from hydra._internal.config_repository import ConfigRepository
    from hydra._internal.hydra import Hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, errors

    from jobs.config.interpolations import check_interpolations
    from jobs.config.option_folders import shipped_folder
    from jobs.config.place_of_lines import place_of_lines
    from jobs.config.program_name import program_name
    from jobs.running.interrupts import interrupts_stay
    from pipeline.errors import ConfigError

    configs, places, faults = list[dict[str, Any]](), list[str | None](), dict[str, None]()

    @hydra.main(version_base="1.3", config_path=str(shipped_folder()), config_name="config")
    def collect(config: Any) -> None:
        try:  # Hydra would answer an exception with a traceback and its own exit code
            with interrupts_stay():
                check_interpolations(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
                found = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            configs.append(found)  # type: ignore[arg-type]
        except ConfigError as error:
            faults.update(dict.fromkeys(error.faults))
        except errors.OmegaConfBaseException as error:
            faults[f"{error.full_key}: {(error.msg or str(error)).splitlines()[0]}"] = None
        places.append(place_of_lines(HydraConfig.get().overrides.task, HydraConfig.get().runtime.choices, folders))

    # Hydra would compose everything twice, to learn whether `hydra.mode` is set, which nothing of ours can do. It also
    # copies all that it knows whenever it lists options, a hundred times for `--help`, and loses `hydra.searchpath`.
    Hydra.get_mode = lambda *_arguments, **_options: None  # type: ignore[method-assign]
    ConfigRepository.__deepcopy__ = lambda repository, _memo: repository  # type: ignore[attr-defined]
    with TemporaryDirectory(prefix="darkroom-") as scratch:
        OmegaConf.register_new_resolver("scratch", lambda: scratch, replace=True)  # for a sweep's multirun.yaml
        OmegaConf.register_new_resolver("own_options", lambda: [f"file://{one}" for one in own], replace=True)
        OmegaConf.register_new_resolver("program", program_name, replace=True)  # for --help
        os.environ["HYDRA_FULL_ERROR"] = "1"  # raise what cannot be composed: `program` says it in one line
        collect()
    if faults:
        raise ConfigError(list(faults))
    return configs, places


def run(arguments: list[str], then: Any = None) -> int:
    """The whole program; returns the exit code. `then` is done with what is composed; None makes images."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            from jobs.running.interrupts import answer_ctrl_c

            answer_ctrl_c()
        from jobs.running.program import program

        return program(arguments, collect_configs, then)
    except KeyboardInterrupt:
        print("stopped before anything was made", file=sys.stderr)
        return 4


if __name__ == "__main__":
    code = run(sys.argv[1:])
    from jobs.running.program import leave

    leave(code)
