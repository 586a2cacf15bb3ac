"""A file of the user's that is a device is refused, not read without end."""

from __future__ import annotations

from pathlib import Path

import pytest

import hwptq
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.errors import InputError
from hwptq.no_device import check_no_device

INPUT = {"x": ((1, 3), "float32")}


def test_what_is_a_file_or_missing_passes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert check_no_device(file) == file
    assert check_no_device(tmp_path / "missing") == tmp_path / "missing"


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_data(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"data{suffix}").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is a device; give a file"):
        open_dataset(tmp_path / f"data{suffix}", INPUT)


def test_other_files(tmp_path: Path) -> None:
    for read, name in ((load_preprocess, "p.toml"), (hwptq.load, "metadata.json")):
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(InputError, match="is a device; give a file"):
            read(tmp_path if name == "metadata.json" else tmp_path / name)
