"""What `hpcpipe site doctor` runs on a node: it looks around there, and tells."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def look_around(element: int, beacons: str, ask: Sequence[str], setups: dict[str, str]) -> Any:
    """Tell of a node: its Python, whether it may submit, what its home and software are like.

    It leaves a beacon, by rename, with the time at which it did, for the doctor to see.
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
        said["software"] = {key: _run(["sh", "-c", lines]) for key, lines in setups.items()}
    new = Path(beacons, f"{element}.new")
    new.write_text(repr(time.time()))
    new.rename(Path(beacons, f"{element}.beacon"))
    return said


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
