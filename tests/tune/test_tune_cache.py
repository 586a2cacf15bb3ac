"""The cache of tiles: found again, keyed by all that matters, damaged files replaced, whole files only."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from hwptq.errors import InputError
from hwptq.tuning.tile_cache import TileCache


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_choice_is_found_again(tmp_path: Path) -> None:
    TileCache(tmp_path / "deep" / "er").put("key", 2, [3.0, 2.0, 1.0], "ns")
    cache = TileCache(tmp_path / "deep" / "er")
    assert cache.get("key", 3) == 2
    assert cache.get("other key", 3) is None
    assert cache.get("key", 2) is None  # there are fewer tiles now


def test_the_folder_of_the_user_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    TileCache(None).put("key", 1, [2.0, 1.0], "ns")
    assert [p.parent for p in tmp_path.rglob("*.json")] == [tmp_path / "hwptq" / "tiles"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"key": "key"}',
        '{"key": "key", "tile": "1"}',
        '{"key": "key", "tile": true}',
        '{"key": "key", "tile": -1}',
        '{"key": "key", "tile": 9}',
        '{"key": "another", "tile": 1}',
    ],
)
def test_a_damaged_file_counts_as_absent_and_is_replaced(tmp_path: Path, text: str) -> None:
    cache = TileCache(tmp_path)
    cache.put("key", 1, [2.0, 1.0], "ns")
    only_file(tmp_path).write_text(text)
    assert cache.get("key", 2) is None
    cache.put("key", 1, [2.0, 1.0], "ns")
    assert cache.get("key", 2) == 1


def test_bytes_that_are_no_text_count_as_absent(tmp_path: Path) -> None:
    cache = TileCache(tmp_path)
    cache.put("key", 1, [2.0, 1.0], "ns")
    only_file(tmp_path).write_bytes(b"\xff\xfe\x00")
    assert cache.get("key", 2) is None


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    cache = TileCache(tmp_path)
    cache.put("key", 0, [1.0] * 2000, "ns")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            cache.put("key", 0, [1.0] * 2000, "ns")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            assert cache.get("key", 1) == 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert json.loads(only_file(tmp_path).read_text())["unit"] == "ns"  # and nothing else is left


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --tune-cache"):
        TileCache(tmp_path / "file" / "folder").put("key", 0, [1.0], "ns")
