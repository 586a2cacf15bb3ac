"""adb, adb:SERIAL: an Android device, by the debug bridge of its SDK."""

from __future__ import annotations

from .shell import Shell


class Adb(Shell):
    """SERIAL is a device of `adb devices`; without one there is only one."""

    name = "adb"
    scratch = "/data/local/tmp"  # others are mounted so that nothing in them runs

    def line(self, command: str) -> list[str]:
        device = ["-s", self.place] if self.place else []
        # -T: no terminal, which would change bytes; -e none: no character is special
        return ["adb", *device, "shell", "-T", "-e", "none", command]

    def is_lost(self, status: int, said: str) -> bool:
        return status < 0 or said.startswith(("adb: ", "error: ", "* daemon"))
