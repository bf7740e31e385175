"""Hydra reads the command line, `jobs` does the rest, and the exit code says how it went. Packages are imported within
functions: a worker's process imports this file too, and Ctrl-C may come at any time."""

import _signal as signal  # type: ignore[import-not-found]  # `signal` around it takes 5 ms to import

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until run() can answer, Ctrl-C ends this without a traceback

import os
import sys
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def collect_configs() -> tuple[list[dict[str, Any]], list[Path]]:
    """Every configuration composed, as plain data (none for `--help` and the like), and the folders they came from."""
    import hydra
    from hydra._internal.config_repository import ConfigRepository
    from hydra._internal.hydra import Hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from jobs.config.composition import explain
    from jobs.config.option_folders import own_folder, shipped_folder
    from jobs.config.program_name import program_name
    from jobs.config.trust import check_interpolations
    from pipeline.errors import ConfigError

    program = program_name()
    configs, folders, faults = list[dict[str, Any]](), dict[Path, None](), dict[str, None]()

    @hydra.main(version_base="1.3", config_path=str(shipped_folder()), config_name="config")
    def collect(config: Any) -> None:
        try:  # Hydra would answer an exception with a traceback and its own exit code
            check_interpolations(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
            configs.append(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
        except ConfigError as error:
            faults.update(dict.fromkeys(error.faults))
        except OmegaConfBaseException as error:
            faults[f"{error.full_key}: {(error.msg or str(error)).splitlines()[0]}"] = None
        sources = HydraConfig.get().runtime.config_sources
        folders.update((Path(source.path), None) for source in sources if source.schema == "file")

    class OwnOptions(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            if folder := own_folder():
                search_path.append("user", f"file://{folder}")

    Plugins.instance().register(OwnOptions)
    # Hydra would compose everything twice, to learn whether `hydra.mode` is set, which nothing of ours can do. It also
    # copies all that it knows whenever it lists options, a hundred times for `--help`: a shallow copy does as well.
    Hydra.get_mode = lambda *_arguments, **_options: None  # type: ignore[method-assign]
    ConfigRepository.__deepcopy__ = lambda repository, _memo: copy(repository)  # type: ignore[attr-defined]
    with TemporaryDirectory(prefix="darkroom-") as scratch:
        OmegaConf.register_new_resolver("scratch", lambda: scratch, replace=True)  # for a sweep's multirun.yaml
        OmegaConf.register_new_resolver("program", lambda: program, replace=True)  # for --help
        os.environ["HYDRA_FULL_ERROR"] = "1"  # raise what cannot be composed: we say it in one line
        try:
            collect()
        except Exception as error:  # of any kind, where Hydra meets a value that it does not expect
            raise ConfigError(explain(str(error))) from error
    if faults:
        raise ConfigError(list(faults))
    return configs, list(folders)


def run(arguments: list[str]) -> int:
    """The whole program; returns the exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        from jobs.running.program import program

        return program(arguments, collect_configs)
    except KeyboardInterrupt:
        print("stopped before anything was made", file=sys.stderr)
        return 4


if __name__ == "__main__":
    code = run(sys.argv[1:])
    from jobs.running.program import leave

    leave(code)
