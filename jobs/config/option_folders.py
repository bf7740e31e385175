"""The folders of option files: the included ones, and the user's own."""

from __future__ import annotations

from pathlib import Path


def shipped_folder() -> Path:
    """`conf/`: beside `jobs` in a checkout, in it where a wheel was installed (setup.py)."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def own_folder() -> Path | None:
    """The user's folder of options, laid out like `conf/`; None if there is none."""
    from pipeline.storage.user_folders import config_folder

    folder = config_folder() / "conf"
    return folder if folder.is_dir() else None


def option_folders() -> list[Path]:
    """Both, as far as they exist, in the order in which Hydra searches them."""
    own = own_folder()
    return [shipped_folder(), *([] if own is None else [own])]
