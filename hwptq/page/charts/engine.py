"""Whether the engine that draws charts can start here: it reserves more addresses than some shells allow."""

from __future__ import annotations

import functools
import resource
import subprocess
import sys

_TRIED = "import vl_convert; vl_convert.vegalite_to_svg({'mark': 'bar', 'data': {'values': []}})"


@functools.cache
def why_not_drawn() -> str:
    """Why there are no charts; "" where there are. It ends the process where it fails, so another one tries.

    Without a limit of the address space it starts.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return ""
    done = subprocess.run([sys.executable, "-c", _TRIED], capture_output=True, check=False)
    return "" if done.returncode == 0 else "the address space is limited (ulimit -v)"
