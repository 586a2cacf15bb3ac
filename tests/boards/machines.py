"""Machines to reach on this one: an sshd with its own keys, and a stand-in for adb."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
SSH = shutil.which("ssh")
_SEPARATION = Path("/run/sshd")  # a folder that sshd of root insists on


def why_no_sshd() -> str | None:
    if not (SSHD and SSH and shutil.which("ssh-keygen")):
        return "no sshd here: apt-get install openssh-server"
    return None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for_boards(port: int, key: str, count: int) -> None:
    """Until a tracker knows so many servers: they tell it when they get to it."""
    tracker = pytest.importorskip("tvm.rpc").connect_tracker("127.0.0.1", port)
    end = time.monotonic() + 30
    while tracker.summary()["queue_info"].get(key, {"free": 0})["free"] < count:
        assert time.monotonic() < end, "the servers don't come"
        time.sleep(0.02)


@dataclass
class SshServer:
    """Serves the host `board` of the ssh in `bin`, which stands for the user's ssh with its configuration."""

    process: subprocess.Popen[bytes]
    bin: Path

    def cut(self) -> None:
        """End all connections; new ones may come."""
        _end(psutil.Process(self.process.pid).children(recursive=True))


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    port = free_port()
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(command, check=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"PermitRootLogin prohibit-password\n"
    )
    (folder / "ssh_config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f" IdentityFile {folder}/user\n IdentitiesOnly yes\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {folder}/known\n LogLevel ERROR\n"
    )
    place = folder / "bin"
    place.mkdir()
    (place / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {folder}/ssh_config "$@"\n')
    (place / "ssh").chmod(0o755)
    assert SSHD
    if os.geteuid() == 0:
        _SEPARATION.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, folder / "log")
        yield SshServer(process, place)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, log: Path) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(log.read_text())


#: Knows one device, whose files lie in a folder of its own. A file `gone` says that its cable is pulled.
_ADB = """#!/bin/sh
if [ "$1" = -s ]; then
    [ "$2" = {serial} ] || {{ echo "adb: device '$2' not found" >&2; exit 1; }}
    shift 2
fi
[ "$1 $2 $3 $4" = "shell -T -e none" ] || {{ echo "adb: usage" >&2; exit 1; }}
[ ! -e {folder}/gone ] || {{ echo "error: device offline" >&2; exit 1; }}
command=$(printf %s "$5" | sed 's#/data/local/tmp#{folder}/tmp#g')
exec 3<&0 # the standard input of what runs in the background is /dev/null
sh -c "$command" <&3 &
echo $! >{folder}/running
wait $!
status=$?
[ ! -e {folder}/gone ] || {{ echo "error: closed" >&2; exit 1; }}
exit $status
"""


def adb_stand_in(folder: Path, serial: str) -> Path:
    """The folder of a script `adb`."""
    place = folder / "bin"
    place.mkdir()
    (folder / "tmp").mkdir()
    (place / "adb").write_text(_ADB.format(serial=serial, folder=folder))
    (place / "adb").chmod(0o755)
    return place


def pull_cable(folder: Path) -> None:
    """Let the stand-in lose its device, in the middle of what runs there."""
    (folder / "gone").touch()
    running = psutil.Process(int((folder / "running").read_text()))
    _end((*running.children(recursive=True), running))


def _end(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ends by itself once its child has been killed
            process.kill()
