"""Which tile measured best, kept on disk: a file for each layer shape, device, and version."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from platformdirs import user_cache_path

from hwptq.errors import InputError


class TileCache:
    """Files `<hash of the key>.json` in a folder, the user's cache if none is given.

    A file that can't be read, is damaged or belongs to another key counts as absent, and is replaced.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder or user_cache_path("hwptq") / "tiles"

    def get(self, key: str, candidates: int) -> int | None:
        """The number of the tile, below `candidates`; None where nothing is known."""
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
            tile = found["tile"]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        known = found.get("key") == key and type(tile) is int and 0 <= tile < candidates
        return tile if known else None

    def put(self, key: str, tile: int, costs: Sequence[float], unit: str) -> None:
        """Keep a choice, with what each candidate costs. Raises InputError if the folder can't be written."""
        text = json.dumps({"key": key, "tile": tile, "costs": list(costs), "unit": unit}, indent=1) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(name, self._file(key))  # as a whole: readers see the old file or the new one
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise InputError(
                f"{self.folder}: can't be written: {error.strerror}; give another --tune-cache"
            ) from error

    def _file(self, key: str) -> Path:
        return self.folder / f"{sha256(key.encode()).hexdigest()[:32]}.json"
