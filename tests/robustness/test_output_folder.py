"""The output folder: whole or not at all, and no file is lost that hwptq did not write."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwptq import output_folder
from hwptq.errors import InputError
from hwptq.output_folder import GENERATOR, METADATA, clear_leftovers, manifest, staged

OLD, NEW = {"a": "old", "b": "old"}, {"b": "new", "c": "new"}
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


def write(folder: Path, files: dict[str, str]) -> None:
    """Files, and the metadata that lists them."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    metadata = {"generator": GENERATOR, "files": manifest(folder)}
    (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def put(output: Path, files: dict[str, str], meanwhile: Callable[[], object] = lambda: None) -> None:
    with staged(output) as folder:
        write(folder, files)
        meanwhile()


def content(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir() if p.name != METADATA}


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_new_output_takes_the_place_of_the_old_one(tmp_path: Path):
    output = tmp_path / "x" / "y" / "out"
    put(output, OLD)
    put(output, NEW)
    assert content(output) == NEW
    assert (entries(tmp_path), entries(tmp_path / "x" / "y")) == (["x"], ["out"])


def test_what_fails_leaves_the_old_output_and_makes_no_folders(tmp_path: Path):
    put(tmp_path / "out", OLD)
    for output in (tmp_path / "out", tmp_path / "x" / "out"):
        with pytest.raises(KeyError), staged(output) as folder:
            raise KeyError(write(folder, NEW))
    assert content(tmp_path / "out") == OLD
    assert entries(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "metadata",
    ['{"title": "a data set"}', '{"files": ["photo"]}', "[]", "{", '{"generator": "hwptq", "files": 3}'],
)
def test_a_folder_of_others_is_refused_before_any_work(tmp_path: Path, metadata: str):
    (tmp_path / METADATA).write_text(metadata, encoding="utf-8")
    (tmp_path / "photo").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds what hwptq didn't write .*photo"), staged(tmp_path):
        pytest.fail("work began")
    assert content(tmp_path) == {"photo": "precious"}


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_file_of_the_users_in_an_old_output_is_refused(tmp_path: Path, make: object):
    put(tmp_path / "out", OLD)
    make(tmp_path / "out" / "notes")  # type: ignore[operator]
    with pytest.raises(InputError, match=r"didn't write \(notes\)"), staged(tmp_path / "out"):
        pytest.fail("work began")
    assert entries(tmp_path / "out") == ["a", "b", METADATA, "notes"]


def test_a_file_that_appears_during_the_work_stays(tmp_path: Path):
    output = tmp_path / "out"
    put(output, OLD)
    put(output, NEW, lambda: (output / "notes").write_text("mine", encoding="utf-8"))
    assert content(output) == {**NEW, "notes": "mine"}
    assert entries(tmp_path) == ["out"]


def test_a_file_that_appears_under_a_name_of_ours_stays_too(tmp_path: Path):
    output = tmp_path / "out"
    put(output, OLD)
    with pytest.raises(InputError, match="c appeared there"):
        put(output, NEW, lambda: (output / "c").write_text("mine", encoding="utf-8"))
    assert content(output) == {**OLD, "c": "mine"}


def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    (tmp_path / "later").symlink_to(tmp_path / "absent")
    for files in (OLD, NEW):
        put(tmp_path / "out", files)
        put(tmp_path / "later", files)
    assert content(tmp_path / "disk") == content(tmp_path / "absent") == NEW
    assert entries(tmp_path) == ["absent", "disk", "later", "out"]
    assert (tmp_path / "out").is_symlink()


def test_the_folder_one_stands_in_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = folder.stat().st_ino
    for files in (OLD, NEW):
        put(Path("."), files)
        assert content(folder) == files
    assert folder.stat().st_ino == before
    assert entries(tmp_path) == ["here"]


@root
def test_a_mount_point(tmp_path: Path):
    with tmpfs(tmp_path / "out", "1m"):
        put(tmp_path / "out", OLD)
        put(tmp_path / "out", NEW)
        assert content(tmp_path / "out") == NEW
        assert entries(tmp_path) == ["out"]


@root
def test_a_full_disk(tmp_path: Path):
    with tmpfs(tmp_path / "disk", "64k"):
        put(tmp_path / "disk" / "out", OLD)
        full = f"^{tmp_path / 'disk'}: the disk is full$"
        with pytest.raises(InputError, match=full), staged(tmp_path / "disk" / "out") as folder:
            (folder / "large").write_bytes(bytes(1 << 17))
        assert content(tmp_path / "disk" / "out") == OLD
        assert entries(tmp_path / "disk") == ["out"]


@root
def test_a_read_only_disk(tmp_path: Path):
    with tmpfs(tmp_path / "disk", "64k"):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        with (
            pytest.raises(InputError, match="can't be written: Permission denied"),
            staged(tmp_path / "disk" / "out"),
        ):
            pytest.fail("work began")


def test_one_process_writes_at_a_time(tmp_path: Path):
    for output in (tmp_path / "out", tmp_path / "out"):
        with staged(output) as folder:
            write(folder, OLD)
            with pytest.raises(InputError, match="another process is writing there"), staged(output):
                pytest.fail("work began")
    assert content(tmp_path / "out") == OLD


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    output = tmp_path / "out"
    put(output, OLD)
    for left in (tmp_path / ".out.hwptq" / "new", output / ".hwptq" / "new"):
        left.mkdir(parents=True)
        (left / "half").touch()
    put(output, NEW)
    assert content(output) == NEW
    assert entries(tmp_path) == ["out"]


class Killed(BaseException):
    """Stands for the end of the process: nothing is done any more."""


@pytest.mark.parametrize("steps", range(7))
def test_an_interrupted_replacement_of_files_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
):
    """Wherever the process ended: an old output that is whole, or one that the next process completes."""
    put(tmp_path, OLD)
    monkeypatch.chdir(tmp_path)
    remaining = iter([True] * steps)

    def counted(function: object) -> object:
        def step(*arguments: object, **options: object) -> object:
            if not next(remaining, False):
                raise Killed
            return function(*arguments, **options)  # type: ignore[operator]

        return step

    with monkeypatch.context() as patch:
        for name in ("unlink", "replace", "rename"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(output_folder, "remove", counted(output_folder.remove))
        with pytest.raises(Killed):
            put(tmp_path, NEW)
    clear_leftovers(tmp_path)
    assert content(tmp_path) == (NEW if steps else OLD)
    assert entries(tmp_path) == sorted([*content(tmp_path), METADATA])
