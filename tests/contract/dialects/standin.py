"""What dialects have in common that are spoken by a stand-in (``tests/standins``)."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from standins import engine

from contract.dialects.base import Census

STANDINS = Path(engine.__file__).parent

# As templates/folder.sh.j2 has it: the run folder, in which a job does not start there.
FOLDER = """folder=$(printf '%b.' "$(printf %s "$HPCPIPE_FOLDER" | sed 's/%/\\\\0/g')")
cd -- "${{folder%.}}" && exec >>"{log}" 2>&1
"""


def variables(name: str) -> Callable[[Path], dict[str, str]]:
    """Give what leads to a stand-in's commands and jobs, in a folder of its users."""

    def make(home: Path) -> dict[str, str]:
        (home / "standin").mkdir()
        path = f"{STANDINS / 'bin' / name}:{os.environ['PATH']}"
        return {"STANDIN": str(home / "standin"), "PATH": path}

    return make


def out_of_reach(home: Path) -> dict[str, str]:
    """Lead to no stand-in."""
    return {"STANDIN": str(home / "nowhere")}


def end(home: Path) -> None:
    """End all that a stand-in runs."""
    engine.clear(home / "standin")


def census(spools: Mapping[str, Path]) -> Census:
    """Count elements by workflow, whose folder a job has."""
    told: Census = {name: Counter() for name in spools}
    state: engine.State = pickle.loads(Path(os.environ["STANDIN"], "state").read_bytes())
    for job in state.jobs.values():
        name = Path(job.variables.get("HPCPIPE_FOLDER", job.folder)).parent.name
        for element in job.elements.values() if name in told else ():
            good = element.code == 0 and not element.cause
            told[name]["live" if element.state != "ended" else "good" if good else "bad"] += 1
    return told
