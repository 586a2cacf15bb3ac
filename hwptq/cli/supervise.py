"""The command as two processes: one works, and this one, which loads no library, waits for it.

So a signal ends the command at any moment, inside of compilers too; a crash is told in one line; and no
temporary files stay behind. What a SIGKILL of both leaves is removed by the next run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from .ending_signals import ENDING

if TYPE_CHECKING:
    from .session import Session

_PREFIX = "hwptq-run-"  # of folders for temporary files
_LOG = "libraries.log"
_PR_SET_PDEATHSIG = 1
#: Products of matrices here are small: more threads gain little, and on a busy machine they wait.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def run() -> int:
    """Run the command line: its exit code. Once its work is done, a signal comes too late."""
    code = _Supervisor().run()
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # Python would give them back their default, without a word
    return code


class _Supervisor:
    """Starts the process that works, stops it when a signal comes, and tidies up after it."""

    def __init__(self) -> None:
        self._child = 0
        self._received = 0  # the signal that ends the command
        for number in (*ENDING, signal.SIGTSTP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as it is with nohup
                signal.signal(number, self._stop if number in ENDING else self._pause)

    def run(self) -> int:
        """The exit code."""
        from hwptq.folder_lock import lock, remove

        try:
            scratch = _scratch_folder()
            with lock(scratch):
                try:
                    return self._supervised(scratch)
                finally:
                    remove(scratch)
        except OSError as error:
            return self._say(f"temporary files can't be written: {error}; set TMPDIR to another folder", 2)

    def _supervised(self, scratch: Path) -> int:
        reading, writing = os.pipe()
        log = os.open(scratch / _LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if not self._received:
            self._fork(scratch, log, reading, writing)
        os.close(writing)
        status = os.waitpid(self._child, 0)[1] if self._child else 0
        self._child = 0
        with os.fdopen(reading) as pipe:
            messages = [json.loads(line) for line in pipe if line.endswith("\n")]
        if {"ended": True} in messages and os.WIFEXITED(status) and not self._received:
            return os.WEXITSTATUS(status)
        said = os.pread(log, 1 << 20, max(0, os.fstat(log).st_size - (1 << 20))).decode(errors="replace")
        outputs = [Path(message["output"]) for message in messages if "output" in message]
        verdict = self._verdict(status, said, [scratch, *outputs])
        self._tidy(outputs)
        return verdict

    def _fork(self, scratch: Path, log: int, reading: int, writing: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        self._child = os.fork()
        if self._child:
            os.setpgid(self._child, self._child)  # as it does itself: whoever is first
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            if self._received:  # before there was anything to stop
                self._kill(signal.SIGKILL)
            return
        status = 1
        try:
            os.close(reading)
            status = _work(scratch, log, writing)
        finally:
            os._exit(status)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._kill(signal.SIGKILL)

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z stops both processes; they go on together."""
        self._kill(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._kill(signal.SIGCONT)

    def _kill(self, number: int) -> None:
        """Signal the process that works, and the compilers and emulators that it started."""
        if self._child:
            with suppress(ProcessLookupError):
                os.killpg(self._child, number)

    def _verdict(self, status: int, said: str, places: list[Path]) -> int:
        """Say why the command has no exit code of its own; returns one for it."""
        from hwptq.disk import fullest, tells_of_full

        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        number = self._received or (killed if killed in ENDING else 0)
        if number:
            return self._say(ENDING[signal.Signals(number)], 128 + number)
        if tells_of_full(said, places):
            return self._say(f"{fullest(places)}: the disk is full", 2)
        if killed == signal.SIGKILL:
            return self._say("the system ended it, most likely for want of memory", 3)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        how = signal.Signals(killed).name if killed else f"exit status {os.WEXITSTATUS(status)}"
        last = f": {lines[-1]}" if lines else ""
        return self._say(f"internal error ({how}){last}; please report it", 1)

    def _say(self, text: str, code: int) -> int:
        shown = "\r\033[K\033[?25h" if sys.stderr.isatty() else ""  # progress had hidden the cursor
        with suppress(OSError):
            print(f"{shown}hwptq: {text}", file=sys.stderr)
        return code

    def _tidy(self, outputs: list[Path]) -> None:
        from hwptq.output_folder import clear_leftovers

        for output in outputs:
            with suppress(OSError):
                clear_leftovers(output)


def _work(scratch: Path, log: int, messages: int) -> int:
    """The process that works: its exit code."""
    import tempfile

    os.setpgid(0, 0)
    for number in (*ENDING, signal.SIGTSTP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # as it may write to the terminal from its group
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    _end_with_parent()
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)

    from .session import Session, quiet_libraries

    session = Session(messages, quiet_libraries(log))
    return _exit_code(session)


def _exit_code(session: Session) -> int:
    from .main import main

    try:
        main(session)
        code: object = 0
    except SystemExit as exit:
        code = exit.code
    with suppress(OSError, ValueError):  # nobody reads it any more
        sys.stdout.flush()
    session.ended()
    return code if isinstance(code, int) else int(code is not None)


def _end_with_parent() -> None:
    """Have the system kill this process when the one that waits for it is killed."""
    import ctypes

    parent = os.getppid()
    with suppress(AttributeError):  # a system other than Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:
        os._exit(128 + signal.SIGKILL)


def _scratch_folder() -> Path:
    """A new folder for temporary files; those that killed processes left are removed first."""
    import tempfile

    from hwptq.folder_lock import clear

    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if old.is_dir() and not old.is_symlink() and old.stat().st_uid == os.geteuid():
                clear(old)
    return Path(tempfile.mkdtemp(prefix=_PREFIX))
