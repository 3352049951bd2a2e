"""A real Grid Engine, as ``tests/clusters/sge.sh`` starts it, and the same through DRMAA."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pwd import getpwuid

from contract.dialects.base import Census, Dialect, answers, says, stopped
from hpcpipe.schedulers.drmaa import Drmaa
from hpcpipe.schedulers.sge import Sge
from hpcpipe.schedulers.sge.qacct import spread

LIBRARY = "/usr/lib/gridengine-drmaa/lib/libdrmaa.so.1.0"
ASKED = ("-N t", "-cwd", "-S /bin/sh", "-j y", "-l h_rt=600,h_vmem=100M")


_missing = answers("SGE_ROOT", "qconf", "-sh")


@cache
def _missing_drmaa() -> str:
    if missing := _missing():
        return missing
    if not Path(LIBRARY).exists():
        return f"there is no {LIBRARY}"
    return "" if find_spec("drmaa") else "pip install 'hpcpipe[drmaa]'"


def _ask(*argv: str) -> str:
    return subprocess.run(argv, text=True, capture_output=True, check=True, timeout=60).stdout


def _records(*which: str) -> Iterator[dict[str, str]]:
    for record in _ask("qacct", *which, "-j").split("=" * 62):
        facts = dict(re.findall(r"^(\w+)[ \t]+(.*?)[ \t]*$", record, re.M))
        if "jobnumber" in facts:  # the last one is a sum
            yield facts


def _census(spools: Mapping[str, Path]) -> Census:
    told: Census = {name: Counter() for name in spools}
    queue = _ask("qstat", "-r", "-xml")
    for row in re.findall(r"<job_list.*?</job_list>", queue, re.S):
        workflow = re.search(r"<full_job_name>\w+\.(.*)</full_job_name>", row)
        tasks = re.search(r"<tasks>(.*)</tasks>", row)
        if workflow and workflow[1] in told:
            told[workflow[1]]["live"] += len([*spread("", tasks[1] if tasks else "")])
    for record in _records("-o"):
        workflow_name = record["jobname"].partition(".")[2]
        if workflow_name in told:
            good = (record["failed"], record["exit_status"]) == ("0", "0")
            told[workflow_name]["good" if good else record["failed"]] += 1
    return told


def _times(job: str) -> Mapping[str, tuple[str, str]]:
    def clock(text: str) -> str:
        return datetime.strptime(text, "%a %b %d %H:%M:%S %Y").isoformat()

    return {
        f"{job}.{record['taskid']}": (clock(record["start_time"]), clock(record["end_time"]))
        for record in _records("-o")
        if record["jobnumber"] == job and record["exit_status"] == "0"
    }


@contextmanager
def _default(options: str) -> Iterator[None]:
    """Have default options of every qstat of the user."""
    file = Path(getpwuid(os.getuid()).pw_dir, ".sge_qstat")
    file.write_text(f"{options}\n")
    try:
        yield
    finally:
        file.unlink()


SGE = Dialect(
    name="sge",
    site="test-sge",
    capabilities=Sge.capabilities,
    adapter=lambda _, run: Sge(run),
    out_of_reach=lambda _: {"SGE_CELL": "nowhere"},
    mark="#$",
    job=("-o logs/out", *ASKED),
    array=("-t {first}-{last}", "-o logs/out.$TASK_ID", *ASKED),
    index="$SGE_TASK_ID",
    element="case $SGE_TASK_ID in [0-9]*) echo $JOB_ID.$SGE_TASK_ID ;; *) echo $JOB_ID ;; esac",
    refused=("-q nowhere", "Unable to run job: Job was rejected because job requests unknown"),
    short_time="15s",  # what is to use too much memory must have started by then
    on=says("qstat", "-help"),
    census=_census,
    hides=lambda: map(_default, ("-s p", "-s s", "-u root", "-f -ne", "-ext", "-r -g d")),
    missing=_missing,
    commands=("qsub", "qstat", "qacct", "qrls", "qdel"),
    aligned=("qrls", "qsub", "qsub"),
    words=("<state>hqw</state>", "<state>hibernating</state>"),
    times=_times,
    mailbox=lambda: Path(os.environ["SGE_ROOT"]).parent / "mail",
    stopped=lambda: stopped(Path(os.environ["SGE_ROOT"]).parent),
)

# DRMAA only submits: all else is as above.
DRMAA = replace(
    SGE,
    name="drmaa",
    site="test-drmaa",
    on=lambda: f"libdrmaa of {SGE.on()}",
    missing=_missing_drmaa,
    capabilities=Drmaa.capabilities,
    adapter=lambda _, run: Drmaa(library=LIBRARY, run=run),
    refused=("-q nowhere", "Job was rejected because job requests unknown queue"),
    commands=("env", "qstat", "qacct", "qrls", "qdel"),
    aligned=("env", "env", "qrls"),
)
