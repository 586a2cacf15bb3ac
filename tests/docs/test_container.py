"""The Dockerfile: a linter finds nothing, and it installs what the descriptors of CPUs need."""

from __future__ import annotations

import re
import subprocess

from doc_blocks import ROOT

from hwptq.targets import load_target, target_names

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n\s*", "", TEXT).splitlines()
    if line and not line.startswith("#")
]


def of(kind: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == kind]


def test_a_linter_finds_nothing() -> None:
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_known_instructions_in_order() -> None:
    kinds = [kind for kind, _ in INSTRUCTIONS]
    assert kinds[0] == "FROM"
    assert set(kinds) <= {"FROM", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "ENV"}
    assert kinds.index("USER") > max(
        n for n, kind in enumerate(kinds) if kind == "RUN"
    )  # root to install, not to run


def test_the_base_has_a_version() -> None:
    (base,) = of("FROM")
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)


def test_installation_leaves_nothing_behind() -> None:
    for command in of("RUN"):
        if "apt-get install" in command:
            assert "apt-get update" in command  # in one layer: a list of packages must not be older
            assert "--no-install-recommends" in command
            assert "-y" in command
            assert command.endswith("rm -rf /var/lib/apt/lists/*")
        if "pip install" in command:
            assert "--no-cache-dir" in command
    assert not re.search(r"\bsudo\b|apt-get upgrade|chmod 777", TEXT)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in of("COPY"):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists()
            assert f"!{source}" in allowed


def test_packages_of_every_target_are_installed() -> None:
    (command,) = (c for c in of("RUN") if "apt-get install" in c)
    installed = set(command.replace("&&", " ").split())
    for name in target_names():
        assert set(load_target(name).toolchain.packages) <= installed, name


def test_commands_are_lists() -> None:
    assert of("ENTRYPOINT") == ['["hwptq"]']
    assert all(c.startswith("[") for c in of("CMD"))
