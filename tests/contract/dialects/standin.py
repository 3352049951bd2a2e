"""What dialects have in common that are spoken by a stand-in (``tests/standins``)."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from standins import engine, links

from contract.dialects.base import Census

# As templates/folder.sh.j2 has it: the run folder, in which a job does not start there.
FOLDER = """folder=$(printf '%b.' "$(printf %s "$HPCPIPE_FOLDER" | sed 's/%/\\\\0/g')")
cd -- "${{folder%.}}" && exec >>"{log}" 2>&1
"""


_SITES = TemporaryDirectory(prefix="standins-")
_SITE = """
extends = "{name}"
description = "A stand-in for {name}"

[limits]
poll_seconds = 0
settle_seconds = 2

[[queues]]
name = "{queue}"
default = true
max_cpus = 8

[[queues]]
name = "long"
max_cpus = 8
"""


def site(name: str, queue: str) -> str:
    """Write the site file of a stand-in with two queues."""
    file = Path(_SITES.name, f"{name}.toml")
    file.write_text(_SITE.format(name=name, queue=queue))
    return str(file)


def variables(name: str, **also: str) -> Callable[[Path], dict[str, str]]:
    """Give what leads to a stand-in's commands and jobs, in a folder of its users."""

    def make(home: Path) -> dict[str, str]:
        (home / "standin").mkdir()
        path = f"{links(name, home)}:{os.environ['PATH']}"
        return {"STANDIN": str(home / "standin"), "PATH": path, **also}

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
