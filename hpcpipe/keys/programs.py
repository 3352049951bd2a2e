"""Whose the program is that a command runs: a script of one's own counts by its content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")  # beside the bin folder of one


def own_program(word: str) -> Path | None:
    """Return the script that PATH finds for a command's first word, if it is the user's own.

    It lies below their home folder, or the folder they submit from, and in no environment:
    what is installed counts by its name, so that keys are the same on another cluster.
    """
    found = shutil.which(word)
    if found is None:
        return None
    path = Path(os.path.realpath(found))
    places = {os.path.realpath(place) for place in (os.path.expanduser("~"), os.getcwd())}
    if places.isdisjoint(map(str, path.parents[:-1])):  # nobody owns all of the machine
        return None
    if any((path.parents[1] / name).exists() for name in _ENVIRONMENTS):
        return None
    return path if _is_script(path) else None


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:  # it may be run, but not read
        return False
