"""The command as a process of its own: what it prints, how signals and crashes end it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import TARGET, write_files

#: Runs the command with something that happens before a model is imported.
PRELUDE = "import hwptq.flow as f, {modules}\ndef happen(*a, **k): {statement}\nf.read_model = happen\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def start(folder: Path, *options: str, prelude: str = "") -> subprocess.Popen[str]:
    """A compilation of the small model; `prelude` is code that the working process runs first."""
    (folder / "prelude.py").write_text(prelude, encoding="utf-8")
    code = (
        "from hwptq.cli import main as m, start\n"
        "whole = m.main\n"
        "def main(session):\n    import prelude\n    whole(session)\n"
        "m.main = main\n"
        "start.main()"
    )
    command = [sys.executable, "-c", code, "compile", "model.onnx", "--target", TARGET]
    command += ["--calibration-data", "data.npz", "--recipe", "fast", *options]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=_hear_signals
    )


def _hear_signals() -> None:
    """A run of tests in the background, or under nohup, ignores some, and what it starts would too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def ended(folder: Path, *options: str, prelude: str = "") -> tuple[int, str, str]:
    process = start(folder, *options, prelude=prelude)
    out, err = process.communicate(timeout=300)
    assert list((folder / "tmp").iterdir()) == []
    assert [p.name for p in folder.iterdir() if "hwptq" in p.name] == []
    return process.returncode, out, err


def happening(statement: str, modules: str = "os") -> str:
    return PRELUDE.format(statement=statement, modules=modules)


def test_what_libraries_print_is_shown_on_demand(folder: Path):
    noise = happening(
        "(os.write(2, b'library speaks\\n'), warnings.warn('numpy warns'), 1 / 0)", "os, warnings"
    )
    code, out, err = ended(folder, prelude=noise)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(
        "hwptq: internal error (ZeroDivisionError): division by zero; --verbose shows where"
    )
    code, _, err = ended(folder, "-v", prelude=noise)
    assert code == 1
    assert all(part in err for part in ("library speaks", "numpy warns", "Traceback", "prelude.py"))


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_before_the_command_has_been_imported(number: signal.Signals, word: str):
    code = (
        "import os, sys\n"
        "class Late:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'hwptq.cli.supervise': os.kill(os.getpid(), {int(number)})\n"
        "from hwptq.cli import start\n"
        "sys.meta_path.insert(0, Late())\n"
        "start.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"hwptq: {word}\n")


def test_quiet(folder: Path):
    assert ended(folder, "-q") == (0, "", "")
    assert (folder / "out" / "report.json").is_file()


@pytest.mark.parametrize(
    ("statement", "code", "line"),
    [
        ("os.write(2, b'LLVM: No space left on device\\n'), os._exit(1)", 2, "/.*: the disk is full"),
        ("os.write(2, b'a\\nbad\\n'), os.abort()", 1, r"internal error \(SIGABRT\): bad; please report it"),
        ("os.kill(os.getpid(), 9)", 3, "the system ended it, most likely for want of memory"),
        ("(_ for _ in ()).throw(MemoryError)", 3, "there is not enough memory .*"),
        ("(_ for _ in ()).throw(RuntimeError('std::bad_alloc'))", 3, "there is not enough memory .*"),
        ("(_ for _ in ()).throw(OSError(28, 'full'))", 2, "/.*: the disk is full"),
    ],
)  # fmt: skip
def test_crashes_are_one_line(folder: Path, statement: str, code: int, line: str):
    found, out, err = ended(folder, prelude=happening(statement))
    assert (found, out) == (code, "")
    (said,) = err.splitlines()
    assert re.fullmatch(f"hwptq: {line}", said), said


@pytest.mark.parametrize(("number", "code", "word", "busy"), [
    (signal.SIGINT, 130, "interrupted", "[x for x in iter(int, 1)]"),
    (signal.SIGINT, 130, "interrupted", "subprocess.run(['sleep', '100'])"),
    (signal.SIGTERM, 143, "terminated", "subprocess.run(['sleep', '100'])"),
    (signal.SIGHUP, 129, "terminated", "time.sleep(100)"),
])  # fmt: skip
def test_signals_end_it_wherever_it_is(folder: Path, number: int, code: int, word: str, busy: str):
    mark = folder / "mark"
    statement = f"(open({str(mark)!r}, 'w'), tempfile.mkdtemp(), {busy})"
    process = start(folder, prelude=happening(statement, "os, time, subprocess, tempfile"))
    while not mark.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (code, "", f"hwptq: {word}\n")
    assert list((folder / "tmp").iterdir()) == []
    assert not (folder / "out").exists()
    assert [p.name for p in folder.iterdir() if "hwptq" in p.name] == []
