# Sourced by run-demo and run-tests, from the root of the checkout: installs whatever is missing, makes .venv
# and puts it in front of PATH. Quick when there is nothing to do.
# shellcheck shell=sh

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# python3, or the newest other one, that pyproject.toml allows
find_python() {
    for python in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
            return
        fi
    done
    fail "Python 3.10, 3.11, 3.12 or 3.13 is needed, and none was found: install it, for instance as python3.13"
}

# A C compiler for this machine and the means to make a virtual environment, then what each target's descriptor
# names in [toolchain] packages: its cross compiler, linker and emulator.
wanted_packages() {
    echo gcc libc6-dev
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$python" = python3 ] && echo python3-venv || echo "$python-venv"
    fi
    "$python" - targets/*.toml <<'PYTHON'
import pathlib, re, sys
for path in sys.argv[1:]:
    for listed in re.findall(r"^packages\s*=\s*\[(.*?)\]", pathlib.Path(path).read_text("utf-8"), re.M | re.S):
        print(*re.findall(r'"([^"]+)"', listed))
PYTHON
}

install_packages() {
    missing=
    for package in $(wanted_packages | tr ' ' '\n' | sort -u); do
        case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" in
            installed) ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -z "$missing" ] && return
    command -v apt-get >/dev/null || fail "no apt-get here: install what these Debian packages hold:$missing"
    if [ "$(id -u)" = 0 ]; then
        sudo=
    elif command -v sudo >/dev/null; then
        sudo=sudo
    else
        fail "packages are missing, you aren't root, and there is no sudo: as root, run apt-get install$missing"
    fi
    say "Installing$missing"
    # shellcheck disable=SC2086  # $sudo may be empty, $missing is a list
    $sudo apt-get update -q >&2 || fail "apt-get update failed: see above"
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q $missing >&2 ||
        fail "apt-get install$missing failed: see above"
}

# For the test that opens the page of a report; without a browser it is skipped, and says so.
want_browser() {
    if command -v chromium >/dev/null || command -v google-chrome >/dev/null; then return 0; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing chromium"
        env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium >&2 && return 0
    fi
    say "No chromium here: the test that opens a report's page is skipped"
}

make_venv() {
    # What .venv was made from; a venv can't be moved, so its place counts too.
    made_from="$("$python" -V) $PWD $(cksum <pyproject.toml)"
    if [ "$(cat .venv/made-from 2>/dev/null)" != "$made_from" ]; then
        say "Installing hwptq into .venv"
        "$python" -m venv --clear .venv || fail "can't make a virtual environment in .venv"
        .venv/bin/python -m pip install --quiet --editable '.[dev]' || fail "pip install failed: see above"
        echo "$made_from" >.venv/made-from
    fi
    PATH="$PWD/.venv/bin:$PATH"
}

find_python
install_packages
make_venv
