"""Entries on disk by their key: whole or absent, the longest unused go first."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

#: Bytes of all entries together.
LIMIT = 2 * 2**30
_MARK = b"hwptq entry 1\n"
_SUFFIX, _UNFINISHED = ".entry", ".part"
_ABANDONED = 3600.0  # seconds after which an unfinished file belongs to no living process


@dataclass(frozen=True)
class Kind:
    """The entries of one kind."""

    name: str
    entries: int
    bytes: int


@dataclass(frozen=True)
class Store:
    """A folder of entries `KIND-KEY.entry`, each with the SHA-256 of its content in front.

    Any number of processes may use it at once, and be killed at any moment: an entry is written aside and
    renamed. One that is damaged, or can't be read, is absent. What can't be written is left: a cache owes
    nobody anything. limit: bytes of all entries; when more are there, those that were used longest ago go.
    """

    folder: Path
    limit: int = LIMIT

    def get(self, kind: str, key: str) -> bytes | None:
        """The content of an entry; None where there is none."""
        file = self._file(kind, key)
        try:
            data = file.read_bytes()
        except OSError:
            return None
        content = data[len(_MARK) + sha256().digest_size :]
        if data != _framed(content):
            self.remove(kind, key)
            return None
        with suppress(OSError):
            os.utime(file)  # used now
        return content

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Keep an entry, and let old ones go."""
        if len(content) > self.limit:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=_UNFINISHED)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_framed(content))
                os.replace(name, self._file(kind, key))
            except BaseException:
                with suppress(OSError):
                    os.unlink(name)
                raise
            self._bound()

    def remove(self, kind: str, key: str) -> None:
        """Let an entry go."""
        with suppress(OSError):
            self._file(kind, key).unlink()

    def kinds(self) -> list[Kind]:
        """What is there, by kind."""
        found: dict[str, list[int]] = {}
        for entry, size, _ in self._entries():
            found.setdefault(Path(entry).name.rpartition("-")[0], []).append(size)
        return [Kind(name, len(sizes), sum(sizes)) for name, sizes in sorted(found.items())]

    def clear(self) -> int:
        """Remove all entries; the bytes that they took."""
        removed = 0
        for entry, size, _ in self._entries():
            with suppress(OSError):
                os.unlink(entry)
                removed += size
        self._sweep()
        return removed

    def _file(self, kind: str, key: str) -> Path:
        return self.folder / f"{kind}-{key}{_SUFFIX}"

    def _bound(self) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        total = sum(size for _, size, _ in entries)
        for name, size, _ in entries:
            if total <= self.limit:
                break
            with suppress(FileNotFoundError):
                os.unlink(name)
            total -= size
        self._sweep()

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        """Path, bytes and time of use of each."""
        yield from self._files(_SUFFIX)

    def _sweep(self) -> None:
        """Remove what killed processes left unfinished."""
        for name, _, used in self._files(_UNFINISHED):
            if time.time() - used / 1e9 > _ABANDONED:
                with suppress(OSError):
                    os.unlink(name)

    def _files(self, suffix: str) -> Iterator[tuple[str, int, int]]:
        try:
            listed = [entry for entry in os.scandir(self.folder) if entry.name.endswith(suffix)]
        except OSError:
            return
        for entry in listed:
            with suppress(OSError):  # another process has removed it
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


def _framed(content: bytes) -> bytes:
    return _MARK + sha256(content).digest() + content
