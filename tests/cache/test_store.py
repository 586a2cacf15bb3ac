"""Entries are whole or absent, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hwptq.cache.cache import Cache
from hwptq.cache.content import JSON, Content
from hwptq.cache.store import Store

ROOT = Path(__file__).parents[2]


def test_what_was_put_is_got(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    assert store.get("kind", "key") is None
    store.put("kind", "key", b"content")
    assert store.get("kind", "key") == b"content"
    assert [(kind.name, kind.entries) for kind in store.kinds()] == [("kind", 1)]
    assert store.clear() > len(b"content")
    assert store.get("kind", "key") is None


@given(st.binary(max_size=40), st.data())
def test_a_damaged_entry_is_absent(tmp_path_factory, content: bytes, data: st.DataObject) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.put("kind", "key", content)
    (file,) = store.folder.iterdir()
    whole = file.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[cut] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (whole[:cut], bytes(flipped)):
        file.write_bytes(damaged)
        assert store.get("kind", "key") is None
        assert not file.exists()


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=1000)
    for age, key in enumerate("abc"):
        store.put("kind", key, bytes(250))
        os.utime(tmp_path / f"kind-{key}.entry", (age, age))
    assert store.get("kind", "a") is not None  # used now
    store.put("kind", "d", bytes(250))
    assert {key for key in "abcd" if store.get("kind", key)} == {"a", "c", "d"}
    store.put("kind", "large", bytes(2000))
    assert store.get("kind", "large") is None
    assert store.get("kind", "d") is not None


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = Cache(Store(tmp_path / "file"))
    assert cache.recall("kind", (1,), JSON, lambda: 7) == 7


_WRITER = """
import sys
from pathlib import Path
from hwptq.cache.store import Store
store = Store(Path(sys.argv[1]), limit=60_000)
print("ready", flush=True)
for turn in range(100_000):
    key = str(turn % 10)
    found = store.get("kind", key)
    assert found is None or found == key.encode() * 5000, "a torn entry"
    store.put("kind", key, key.encode() * 5000)
"""


def test_two_processes_and_a_kill(tmp_path: Path) -> None:
    """Both write and read the same keys, one is killed at some moment; the other never sees half an entry."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    store = Store(tmp_path, limit=60_000)
    for turn in range(200):
        key = str(turn % 10)
        assert store.get("kind", key) in (None, key.encode() * 5000)
        if turn == 100:
            writers[0].send_signal(signal.SIGKILL)
    assert writers[1].poll() is None
    writers[1].kill()
    for writer in writers:
        _, said = writer.communicate()
        assert not said
    assert all(store.get("kind", str(k)) in (None, str(k).encode() * 5000) for k in range(10))


def test_what_cannot_be_read_is_computed_anew(tmp_path: Path) -> None:
    def fail(data: bytes) -> int:
        raise RuntimeError("of another version")

    cache, asked = Cache(Store(tmp_path)), []
    cache.recall("kind", (1,), JSON, lambda: 7)
    assert cache.recall("kind", (1,), Content(JSON.write, fail), lambda: asked.append(1) or 8) == 8
    assert asked == [1]


def test_what_has_no_hash_is_computed_each_time(tmp_path: Path) -> None:
    cache, asked = Cache(Store(tmp_path)), []
    for _ in range(2):
        cache.recall("kind", (print,), JSON, lambda: asked.append(1))
    assert asked == [1, 1]
    assert not list(tmp_path.iterdir())


def test_another_context_finds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert Cache(store, "one").recall("kind", (1,), JSON, lambda: 7) == 7
    assert Cache(store, "two").recall("kind", (1,), JSON, lambda: 8) == 8
    assert Cache(store, "one").recall("kind", (1,), JSON, lambda: 9) == 7
    assert Cache(store, "one").recall("other", (1,), JSON, lambda: 9) == 9


@given(held=st.sets(st.integers(0, 9)), wanted=st.lists(st.integers(0, 9)))
def test_of_several_only_those_that_are_lacking_are_made(tmp_path_factory, held, wanted) -> None:
    cache = Cache(Store(tmp_path_factory.mktemp("cache")))
    for each in held:
        cache.recall("square", (each,), JSON, partial(int, each**2))
    made: list[int] = []

    def squares(numbers: Sequence[int]) -> Iterator[int]:
        made.extend(wanted[number] for number in numbers)
        yield from (wanted[number] ** 2 for number in numbers)

    assert cache.recall_all("square", [(each,) for each in wanted], JSON, squares) == [n**2 for n in wanted]
    assert made == [each for each in wanted if each not in held]
