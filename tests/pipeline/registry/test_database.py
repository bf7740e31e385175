"""The registry's file: shared between processes, brought up to date, and in plain words when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from processes import output, python, without_privileges
from small_weights import fetched, write_lora

from pipeline.errors import ModelError
from pipeline.registry.database import MIGRATIONS, Registry, RegistryError
from pipeline.registry.queries import list_models
from pipeline.registry.store_folders import data_folder, registry_file, store_folder
from pipeline.storage.sqlite_files import network_disk


def one_line(error: BaseException) -> str:
    assert isinstance(error, ModelError) and "\n" not in str(error)
    return str(error)


def test_folders_are_the_users_and_move_with_darkroom_home(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert data_folder() == home and registry_file() == home / "registry.sqlite" and store_folder() == home / "models"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DARKROOM_HOME", "~/elsewhere")
    assert data_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("DARKROOM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert data_folder() == tmp_path / "data" / "darkroom"


def test_two_processes_write_at_once_and_nothing_is_lost(home: Path) -> None:
    """Four start together on a registry that does not exist yet, so they also race to make it."""
    code = """
import sys
from pathlib import Path
from pipeline.registry.database import Registry
from pipeline.registry.records import StoredModel
from pipeline.registry.storing import add
for number in range(50):
    with Registry() as registry:
        reference = f"civitai:{sys.argv[1]}{number:03}"
        add(registry, StoredModel("a", "civitai", reference, "lora", Path("/a"), 1), [])
"""
    for process in [python(code, n) for n in (1, 2, 3, 4)]:
        output(process)
    with Registry() as registry:
        assert len({model.reference for model in list_models(registry)}) == 200
        assert registry.rows("PRAGMA integrity_check")[0][0] == "ok"
        assert registry.rows("PRAGMA journal_mode")[0][0] == "wal"


def test_process_that_is_killed_while_writing_leaves_all_or_nothing(home: Path) -> None:
    code = """
import os, signal
from pathlib import Path
from pipeline.registry.database import Registry
from pipeline.registry.records import StoredModel
from pipeline.registry.storing import add
registry = Registry()
add(registry, StoredModel("whole", "local", "/a", "lora", Path("/a"), 1), [])
with registry.changing():
    add(registry, StoredModel("half", "local", "/b", "lora", Path("/b"), 1), [])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = python(code)
    process.communicate(timeout=60)
    assert process.returncode == -9
    with Registry() as registry:
        assert [model.name for model in list_models(registry)] == ["whole"]


def test_registry_locked_by_another_process_ends_in_one_line(home: Path, registry: Registry) -> None:
    code = """
import sys
from pipeline.registry.database import Registry
with Registry().changing():
    print("locked", flush=True)
    sys.stdin.read()
"""
    process = python(code, stdin=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == "locked\n"
    with Registry(busy_s=0.1) as waiting:
        assert list_models(waiting) == []  # reading goes on
        with (
            pytest.raises(RegistryError, match=r"is in use by another process.*try again") as caught,
            waiting.changing(),
        ):
            pass
        one_line(caught.value)
    process.communicate("", timeout=60)
    with registry.changing():
        pass


def test_damaged_registry_says_how_to_set_it_aside(home: Path) -> None:
    home.mkdir()
    registry_file().write_bytes(b"this is no database, though it is long enough to be looked at" * 100)
    with pytest.raises(RegistryError, match=r"is damaged.*move it away.*darkroom models scan FOLDER") as caught:
        Registry()
    assert str(registry_file()) in one_line(caught.value)
    registry_file().rename(home / "old")
    with Registry() as registry:
        assert list_models(registry) == []


def test_damage_inside_is_found_when_it_is_met(home: Path, tmp_path: Path) -> None:
    with Registry() as registry:
        for number in range(200):
            fetched(registry, write_lora(tmp_path / f"lora{number}.safetensors", rank=1), number + 1)
        registry.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    size = registry_file().stat().st_size
    with registry_file().open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(RegistryError, match="is damaged") as caught, Registry() as registry:
        list_models(registry)
    one_line(caught.value)


def test_registry_of_a_newer_version_is_left_alone(home: Path, registry: Registry) -> None:
    registry.rows(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = registry_file().read_bytes()
    with pytest.raises(RegistryError, match=r"newer Darkroom.*update Darkroom, or let DARKROOM_HOME") as caught:
        Registry()
    one_line(caught.value)
    assert registry_file().read_bytes() == before


def test_tables_are_brought_up_to_date_one_version_after_the_other(
    home: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched(registry, write_lora(tmp_path / "lora.safetensors"), 1)
    further = (*MIGRATIONS, ("ALTER TABLE models ADD COLUMN rating INTEGER", "UPDATE models SET rating = 5"))
    monkeypatch.setattr("pipeline.registry.database.MIGRATIONS", further)
    with Registry() as newer:
        assert newer.rows("SELECT rating FROM models")[0]["rating"] == 5
        assert newer.rows("PRAGMA user_version")[0][0] == len(further)
    with Registry() as again:
        assert [model.name for model in list_models(again)] == ["lora"]


def test_change_of_tables_that_fails_leaves_the_old_ones(
    home: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = (*MIGRATIONS, ("ALTER TABLE models ADD COLUMN rating INTEGER", "nonsense"))
    monkeypatch.setattr("pipeline.registry.database.MIGRATIONS", further)
    with pytest.raises(RegistryError, match="cannot be used"):
        Registry()
    assert registry.rows("PRAGMA user_version")[0][0] == len(MIGRATIONS)
    assert "rating" not in [row["name"] for row in registry.rows("PRAGMA table_info(models)")]


READ_ONLY = """
from pipeline.registry.database import Registry, RegistryError
from pipeline.registry.queries import list_models, stats
with Registry() as registry:
    print([model.name for model in list_models(registry)])
    try:
        with registry.changing():
            pass
    except RegistryError as error:
        print(error)
"""


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "in use"])
def test_registry_on_a_read_only_disk_can_be_read(home: Path, tmp_path: Path, closed: bool) -> None:
    """Also with rows that lie in the write-ahead file only, as while another process has it open."""
    registry = Registry()
    fetched(registry, write_lora(tmp_path / "lora.safetensors"), 1)
    if closed:
        registry.close()
    files = list(home.glob("registry.sqlite*"))
    for path in files:
        path.chmod(0o444)
    home.chmod(0o555)
    try:
        said = output(python(READ_ONLY, preexec_fn=without_privileges)).splitlines()
    finally:
        home.chmod(0o755)
        for path in files:
            path.chmod(0o644)
        registry.close()
    assert said[0] == "['lora']"
    assert "cannot be written; make it writable" in said[1] and len(said) == 2


def test_where_no_registry_can_be_made_nothing_is_known_and_writing_says_why(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    home.chmod(0o555)
    try:
        said = output(python(READ_ONLY, preexec_fn=without_privileges)).splitlines()
    finally:
        home.chmod(0o755)
    assert said[0] == "[]" and "cannot be written" in said[1] and len(said) == 2


def test_folder_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(RegistryError, match="its folder cannot be made") as caught:
        Registry()
    one_line(caught.value)
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    (tmp_path / "registry.sqlite").mkdir()
    with pytest.raises(RegistryError, match=str(tmp_path)) as caught:
        Registry()
    one_line(caught.value)


def test_full_disk_is_one_line_and_what_was_there_stays(home: Path, registry: Registry) -> None:
    pages = registry.rows("PRAGMA page_count")[0][0]
    registry.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RegistryError, match="no space left") as caught, registry.changing() as connection:
        connection.executemany("INSERT INTO scanned VALUES (?, '', '', NULL)", ((str(n) * 500,) for n in range(1000)))
    one_line(caught.value)
    assert registry.rows("SELECT count(*) FROM scanned")[0][0] == 0


def test_foreign_database_is_not_written_into(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(registry_file()) as other:
        other.execute("CREATE TABLE models (whatever TEXT)")
    other.close()
    with pytest.raises(RegistryError, match="cannot be used") as caught:
        Registry()
    one_line(caught.value)


def test_network_disks_are_told_by_the_kernels_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    share = tmp_path / "net work"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\n"
        f"server:/export {str(share).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
        f"/dev/vdb {str(share / 'local').replace(' ', chr(92) + '040')} ext4 rw 0 0\n"
        "malformed\n"
    )
    assert network_disk(share / "home", mounts) == "nfs4"
    assert network_disk(share / "local" / "home", mounts) is None
    assert network_disk(tmp_path / "home", mounts) is None
    assert network_disk(share, tmp_path / "no such list") is None
    monkeypatch.setattr("pipeline.registry.database.network_disk", lambda path: "nfs4")
    with pytest.raises(RegistryError, match=r"network disk \(nfs4\).*DARKROOM_HOME") as caught:
        Registry()
    one_line(caught.value)
    assert not registry_file().exists()


def test_opening_is_cheap_and_cold() -> None:
    code = "import pipeline.weights.references, pipeline.registry.scanning"
    env = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    said = output(python(code, env=env))
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines()}
    assert "sqlite3" in imported
    assert not imported & {"torch", "diffusers", "transformers", "huggingface_hub", "numpy", "pydantic", "requests"}


def test_references_alone_import_no_database() -> None:
    code = "import sys, pipeline.weights.references; print('sqlite3' in sys.modules, 'hashlib' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # which imports both
    assert output(python(code, env=env)) == "False False"
