"""The user's cache: results of earlier compilations."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path

from .backends.host import cpu_identity
from .cache.cache import Cache
from .cache.digest import digest
from .cache.store import Store
from .cache.versions import extensions, versions


def results_folder() -> Path:
    """Where they lie: `results` in the folder of hwptq among the user's caches ($XDG_CACHE_HOME)."""
    return user_cache_path("hwptq") / "results"


def open_cache(wanted: bool) -> Cache:
    """The user's cache, or one that keeps nothing.

    A result is found again by the same code, the same libraries, the same extensions and on the same kind of
    processor alone: sums of floats differ in their last bits from one processor's library to another's.
    """
    if not wanted:
        return Cache()
    return Cache(Store(results_folder()), digest(versions(), extensions(), cpu_identity()))
