"""A real Slurm, as ``tests/clusters/slurm.sh`` starts it."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from contract.dialects.base import Census, Dialect, answers, says, setting, stopped
from hpcpipe.schedulers.slurm import Slurm

LIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED"}


def _out_of_reach(home: Path) -> dict[str, str]:
    dead = home / "dead.conf"
    conf = Path(os.environ["SLURM_CONF"]).read_text()
    # Nothing listens on port 9; by default each command would try for ten seconds or twenty.
    conf = re.sub(r"^(SlurmctldPort|AccountingStoragePort)=.*", r"\1=9", conf, flags=re.M)
    dead.write_text(f"{conf}\nMessageTimeout=2\n")
    return {"SLURM_CONF": str(dead)}


def _ask(*argv: str) -> list[list[str]]:
    done = subprocess.run(argv, text=True, capture_output=True, check=True, timeout=60)
    return [line.split("|") for line in done.stdout.splitlines()]


def _census(spools: Mapping[str, Path]) -> Census:
    told: Census = {name: Counter() for name in spools}
    jobs = ",".join(f"{node}.{name}" for name in spools for node in ("first", "second"))
    queue = _ask("squeue", "-hr", f"--name={jobs}", "--format=%j|%T")
    past = _ask(
        "sacct", "-nPX", "--starttime=now-1hour", f"--name={jobs}", "--format=JobName,State"
    )
    for job, word in queue + past:
        state = "live" if word in LIVE else "good" if word == "COMPLETED" else word
        told[job.partition(".")[2]][state] += 1
    return told


def _times(job: str) -> Mapping[str, tuple[str, str]]:
    rows = _ask("sacct", "-nPX", f"--jobs={job}", "--format=JobID,Start,End,State")
    return {element: (start, end) for element, start, end, word in rows if word == "COMPLETED"}


def _set_node(node: str, state: str) -> None:
    _ask("scontrol", "update", f"nodename={node}", f"state={state}", "reason=a test")


_HIDING = {
    "SQUEUE_PARTITION": "gpu", "SQUEUE_STATES": "SUSPENDED", "SQUEUE_USERS": "root",
    "SQUEUE_NAMES": "zz", "SQUEUE_ACCOUNT": "nobody", "SQUEUE_QOS": "high", "SQUEUE_LICENSES": "x",
    "SQUEUE_FORMAT": "%A", "SQUEUE_SORT": "-i", "SQUEUE_ARRAY": "1", "SLURM_CLUSTERS": "nowhere",
    "SLURM_TIME_FORMAT": "relative", "SLURM_BITSTR_LEN": "5",
}  # fmt: skip

SLURM = Dialect(
    name="slurm",
    site="test-slurm",
    capabilities=Slurm.capabilities,
    adapter=lambda _, run: Slurm(run),
    out_of_reach=_out_of_reach,
    mark="#SBATCH",
    job=("--output=logs/out", "--time=10:00", "--mem=50M"),
    array=("--array={indices}", "--output=logs/out.%a", "--time=10:00", "--mem=50M"),
    index="$SLURM_ARRAY_TASK_ID",
    element="job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}; "
    "echo $job${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}",
    refused=("--partition=nowhere", "sbatch: error: invalid partition specified: nowhere"),
    short_time="1m",  # it knows none below, and looks every half minute
    on=says("sinfo", "-V"),
    census=_census,
    missing=answers("SLURM_CONF", "scontrol", "ping"),
    commands=("sbatch", "squeue", "sacct", "scontrol", "scancel", "sacctmgr"),
    aligned=("sbatch", "sbatch", "scontrol"),
    words=("|PENDING|", "|HIBERNATING|"),
    times=_times,
    mailbox=lambda: Path(os.environ["SLURM_CONF"]).parents[1] / "mail",
    hides=lambda: (setting(**{name: value}) for name, value in _HIDING.items()),
    stopped=lambda: stopped(Path(os.environ["SLURM_CONF"]).parents[1]),
    node="echo $SLURMD_NODENAME",
    set_node=_set_node,
)
