"""ssh:HOST: a Linux board, as the ssh command and its configuration reach it."""

from __future__ import annotations

from .shell import Shell

#: Nobody is there to type a password; a dead connection is noticed within a quarter of a minute.
_OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3",
)  # fmt: skip


class Ssh(Shell):
    """HOST is whatever ssh takes: a name, user@name, or a Host of ~/.ssh/config with its port and its key."""

    name = "ssh"

    def line(self, command: str) -> list[str]:
        return ["ssh", *_OPTIONS, "--", self.place, command]

    def is_lost(self, status: int, said: str) -> bool:
        return status == 255 or status < 0
