"""What `hpcpipe site doctor` runs on a node, to examine it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any


def look_around(element: int, beacons: str, ask: Sequence[str], setups: dict[str, str]) -> Any:
    """Return what a node is like: its Python, whether it may submit, its home and software.

    It leaves a beacon with the present time, by rename, for the doctor to see.
    """
    said: dict[str, Any] = {
        "host": os.uname().nodename,
        "python": sys.executable,
        "version": platform.python_version(),
        "system": platform.platform(),
        "home": os.access(Path.home(), os.W_OK),
    }
    if element == 0:  # once is enough
        said["submit"] = _run(list(ask)) if ask else None
        said["software"] = {key: _run(["sh", "-c", _looking(setups[key])]) for key in setups}
    new = Path(beacons, f"{element}.new")
    new.write_text(repr(time.time()))
    new.rename(Path(beacons, f"{element}.beacon"))
    return said


def _looking(setup: str) -> str:
    """Return a setup, followed by a look at the SPM that it names, if it does and has succeeded."""
    if "HPCPIPE_SPM" not in setup:
        return setup
    look = f"{quote(sys.executable)} -m hpcpipe.nipype.spm_check"
    return f"{setup}\nstatus=$?; [ $status = 0 ] || exit $status; exec {look}"


def _run(words: list[str]) -> tuple[int, str]:
    """Run a command to its end; give its status and its last words."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    lines = (done.stderr or done.stdout).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""
