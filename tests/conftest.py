"""What several folders of tests share: targets that can be used here, and the compiled demo."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from real_models import MODELS

from hwptq.backends.backend import backend_of, why_not_run
from hwptq.errors import InputError
from hwptq.targets import load_target

# A busy machine is no reason to fail.
settings.register_profile("hwptq", deadline=None)
settings.load_profile("hwptq")


@cache
def _why_not(name: str) -> str | None:
    target = load_target(name)
    try:
        backend_of(target).check()
    except InputError as error:
        return str(error)
    reason = why_not_run(target)
    return f"{name}: {reason}" if reason else None


_caches = count()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds what another one, or the user, has kept; the folder is made when it is needed."""
    folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_caches))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


@pytest.fixture(scope="session")
def runnable() -> Callable[[str], str]:
    """Gives a target's name back; skips the test where its programs can't be built or run here."""

    def check(name: str) -> str:
        if reason := _why_not(name):
            pytest.skip(reason)
        return name

    return check


@pytest.fixture(scope="session")
def demo(runnable: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """demo(target) is the demo compiled for it, once a session; leave its folder as it is."""

    @cache
    def compiled(target: str) -> Any:
        folder = tmp_path_factory.mktemp(target) / "out"
        return MODELS["demo"].compiled(runnable(target), folder, calibration=16, evaluation=12)

    return compiled
