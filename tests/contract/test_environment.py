"""What a task finds in its environment: what the plan says, and nothing of an outer job."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

from contract.harness import Cluster

# Of jobs that hpcpipe is typed in, and of shells that ask for something else.
OUTER = {
    "SBATCH_TIMELIMIT": "1", "SBATCH_PARTITION": "nowhere", "SBATCH_OUTPUT": "/nowhere/x",
    "SBATCH_WAIT": "1", "SBATCH_EXPORT": "NONE", "SLURM_CPU_BIND": "map_cpu:1",
    "SLURM_STEP_ID": "41", "SLURM_DISTRIBUTION": "cyclic", "SGE_HGR_gpu": "7", "NHOSTS": "9",
    "PBS_ARRAY_INDEX": "41", "OAR_NODEFILE": "/nowhere", "LSB_DEFAULTQUEUE": "nowhere",
    "FLUX_TASK_RANK": "41", "HPCPIPE_SCRATCH": "/nowhere", "OMPI_COMM_WORLD_RANK": "41",
    "SSH_TTY": "/dev/pts/41",
}  # fmt: skip
SHOW = f"""#!{sys.executable}
import json, os
print(json.dumps(dict(os.environ)))
"""


def environment_of_a_task(cluster: Cluster) -> dict[str, Any]:
    """Return the environment that a task of a plain job finds; its program is found by PATH."""
    show = cluster.write("show-environment", SHOW)
    show.chmod(0o755)
    path = f"{show.parent}:{cluster.environment['PATH']}"
    cluster = replace(cluster, changed={**cluster.changed, "PATH": path})
    asked = ("--name", "one", "--time", "5m", "--cpus", "1")
    cluster.hpcpipe("map", *asked, "--", "show-environment", "{}", ":::", "1")
    assert cluster.finish()["failures"] == []
    log = cluster.hpcpipe("logs", "one/1").stdout
    found: dict[str, Any] = json.loads(log)
    return found


def test_nothing_of_an_outer_job_reaches_a_task_or_what_it_asks_for(cluster: Cluster) -> None:
    inside = replace(cluster, changed={**cluster.changed, **OUTER})
    found = environment_of_a_task(inside)
    assert {name for name, value in OUTER.items() if found.get(name) == value} == set()


def test_a_task_finds_what_was_in_the_shell_that_it_was_submitted_from(cluster: Cluster) -> None:
    mine = {
        "ODD": "it's $(touch pwned), \"`x`\"\n\\ü", "EMPTY": "", "FSLDIR": "/opt/fsl",
        "OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "64", "BASH_FUNC_greet%%": "() { echo hi\n}",
    }  # fmt: skip
    typed = replace(cluster, changed={**cluster.changed, **mine})
    found = environment_of_a_task(typed)
    del mine["MKL_NUM_THREADS"]
    assert found.items() >= (mine | {"OMP_NUM_THREADS": "1"}).items()
    assert found["PATH"].split(":")[0] == str(cluster.home)
    assert "MKL_NUM_THREADS" not in found
