"""What may not end ends: code generation has so much processor time, and then is asked for less."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te, topi

from hwptq.backends.static_c import raw_functions
from hwptq.backends.static_c.apart import Ended, run_apart


def _spin() -> None:
    while True:
        pass


def _fail() -> None:
    raise ValueError("no")


def test_what_it_writes_stays(tmp_path: Path) -> None:
    assert run_apart(lambda: np.save(tmp_path / "a.npy", np.arange(3)), 5) is Ended.DONE
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_what_fails_or_does_not_end_is_told_apart() -> None:
    assert run_apart(_fail, 5) is Ended.FAILED
    assert run_apart(_spin, 1) is Ended.OUT_OF_TIME


def test_what_waits_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwptq.backends.static_c.apart._WAITING", 0.2)
    assert run_apart(lambda: time.sleep(100), 1) is Ended.OUT_OF_TIME


def test_a_transposition_that_llvm_never_ends_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_functions, "_SECONDS", 1)
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "cascadelake"})
    x = te.placeholder((1, 4, 11, 6), "int8")
    function = te.create_prim_func([x, topi.transpose(x, (0, 2, 3, 1))])
    raw_functions.write_object(raw_functions.lower({"f": function}, target, 64), target, tmp_path / "f.o")
    assert (tmp_path / "f.o").read_bytes()[:4] == b"\x7fELF"


def test_an_error_of_code_generation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu"})
    x = te.placeholder((4,), "int8")
    lowered = raw_functions.lower({"f": te.create_prim_func([x, topi.identity(x)])}, target, 64)
    monkeypatch.setattr(raw_functions, "_generate", lambda *_: _fail())
    with pytest.raises(ValueError, match="no"):
        raw_functions.write_object(lowered, target, tmp_path / "f.o")
