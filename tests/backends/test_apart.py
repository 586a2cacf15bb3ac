"""What may not end ends: code generation has so much processor time, and then is asked for less."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, te, topi

from hwptq.backends.static_c import levels
from hwptq.backends.static_c.apart import Ended, run_apart, share_apart
from hwptq.backends.static_c.kernel_objects import write_kernels
from hwptq.backends.static_c.raw_functions import lower, write_object
from hwptq.backends.static_c.shared_library import build_library
from hwptq.cache.cache import Cache
from hwptq.targets import load_target


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


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_several_share_the_work(cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwptq.backends.static_c.apart.own_cores", lambda: cores)
    share_apart(lambda number: (tmp_path / str(number)).touch(exist_ok=False), range(20), 5)
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == list(range(20))


@pytest.mark.parametrize("bad", [_spin, _fail])
def test_what_does_not_end_is_left_to_its_caller(
    bad: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(number: int) -> None:
        if number == 1:
            bad()
        (tmp_path / str(number)).touch()

    monkeypatch.setattr("hwptq.backends.static_c.apart.own_cores", lambda: 2)
    assert share_apart(work, range(4), 1) == ({1} if bad is _spin else set())
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == [0, 2, 3]


def test_a_kernel_that_llvm_never_ends_is_compiled_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "_FIRST", 0)
    functions = {}
    for name, shape in (("f", (1, 4, 11, 6)), ("g", (1, 4, 8, 8))):
        x = te.placeholder(shape, "int8")
        functions[name] = te.create_prim_func([x, topi.transpose(x, (0, 2, 3, 1))])
    write_kernels(functions, "", load_target("x86-64-vnni"), tmp_path, Cache())
    assert (tmp_path / "kernels.o").read_bytes()[:4] == b"\x7fELF"


def _transposition() -> tvm.IRModule:
    x, builder = relax.Var("x", relax.TensorType((1, 4, 11, 6), "int8")), relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.permute_dims(x, [0, 2, 3, 1])))
        builder.emit_func_output(y)
    return builder.get()


@pytest.mark.parametrize("library", [False, True])
def test_a_transposition_that_llvm_never_ends_is_compiled(
    library: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "_FIRST", 0)
    target = load_target("x86-64-vnni")
    device = tvm.target.Target(dict(target.tvm))
    if library:
        build_library(_transposition(), target, tmp_path / "f")
    else:
        x = te.placeholder((1, 4, 11, 6), "int8")
        function = te.create_prim_func([x, topi.transpose(x, (0, 2, 3, 1))])
        write_object(lower({"f": function}, device, 64), device, tmp_path / "f")
    assert (tmp_path / "f").read_bytes()[:4] == b"\x7fELF"


def test_nothing_goes_on_when_the_user_interrupts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    def work() -> None:
        (tmp_path / "new").write_text(str(os.getpid()))
        (tmp_path / "new").rename(tmp_path / "pid")
        _spin()

    monkeypatch.setattr("hwptq.backends.static_c.apart.select.select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_apart(work, 60)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_error_is_told() -> None:
    with pytest.raises(ValueError, match="no"):
        levels.generate_at_some_level(lambda _: _fail(), tvm.target.Target("llvm"), ["f"])


def test_what_ends_at_no_level_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "_FIRST", 0)
    monkeypatch.setattr(levels, "_EACH", 1)
    with pytest.raises(ValueError, match="f: LLVM does not end within 1 s"):
        levels.generate_at_some_level(lambda _: _spin(), tvm.target.Target("llvm"), ["f"])
