"""What a submit command and a task find of the submitter's environment; ``docs/environment.rst``.

A scheduler's variables describe a job to itself, and also set options of the submit command.
Neither may come from outside the plan, so all are removed, whichever scheduler they belong to: a
job of one may submit to another.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

from hpcpipe.schedulers import REGISTRY

# Ours, and what launchers of MPI set in a process.
_OTHERS = (
    r"HPCPIPE_(JOB_ID|INDEX|CPUS|SPOOL|FOLDER|TOKEN|SCRATCH|LAUNCHER|LOG|KEEP_SHORT)",
    r"PMI_\w+|PMIX_(?!MCA_)\w+|PALS_\w+|OMPI_(COMM|UNIVERSE|FIRST|FILE|APP|NUM|ARGV|COMMAND)_\w+",
)
# Also names that many people use: of a job only where another variable shows that this is one.
_IN_GRID_ENGINE = r"PE|QUEUE|REQUEST|REQNAME|RESTARTED|ENVIRONMENT|ARC|TASK_ID|JOB_NAME|JOB_SCRIPT"
_GPUS = r"(CUDA|ROCR|HIP|NVIDIA)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK"
# Of a terminal, a login or a host, which are not there when a task runs.
_SESSION = (
    r"DISPLAY|XAUTHORITY|WAYLAND_DISPLAY|SSH_\w+|GPG_TTY|TMUX\w*|STY|WINDOWID|COLUMNS|LINES"
    r"|XDG_(SESSION_\w+|RUNTIME_DIR|SEAT|VTNR)|DBUS_SESSION_BUS_ADDRESS|INVOCATION_ID"
    r"|JOURNAL_STREAM|HOST|HOSTNAME|TMPDIR|TMP|TEMP"
)


def left_behind(names: Collection[str], *, gpus: bool = True) -> Iterator[str]:
    """Yield which of these variables neither a submit command nor a task may see.

    ``gpus`` is whether GPUs are granted to each job, so that those of this shell are not its.
    """
    patterns = [*variables().values(), *_OTHERS, _SESSION, *[_GPUS][: 1 if gpus else 0]]
    if "SGE_TASK_ID" in names:
        patterns.append(_IN_GRID_ENGINE)
    left = re.compile("|".join(patterns))
    return (name for name in sorted(names) if left.fullmatch(name))


def passed(environment: Mapping[str, str], *, gpus: bool = True) -> dict[str, str]:
    """Return what is left of an environment for a task; ``gpus`` as in `left_behind`."""
    left = {*left_behind(environment, gpus=gpus)}
    return {name: value for name, value in environment.items() if name not in left}


@cache
def variables() -> Mapping[str, str]:
    """Map our schedulers to the pattern of the variables they set in a job, or take options from.

    Not of the few by which the commands find their scheduler, nor of how MPI is started.
    """
    return {name: pattern for name in REGISTRY if (pattern := _pattern(name))}


def _pattern(name: str) -> str:
    """Read ``VARIABLES`` of an adapter; to import ``options`` would import the adapter first."""
    text = (Path(__file__).with_name(name) / "options.py").read_text("utf-8")
    literal = text.partition("\nVARIABLES = ")[2].partition("\n\n")[0]
    return str(literal_eval(literal)) if literal else ""
