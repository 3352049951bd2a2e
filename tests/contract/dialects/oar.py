"""A real OAR, as ``tests/clusters/oar.sh`` starts it."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.dialects.base import Census, Dialect, answers, says, stopped
from hpcpipe.schedulers.oar import Oar


def _out_of_reach(_: Path) -> dict[str, str]:
    return {"PGHOSTADDR": "127.0.0.9"}  # where no PostgreSQL listens


def _rows(sql: str) -> list[dict[str, Any]]:
    argv = ["oarstat", "-fJ", "--sql", sql]
    said = subprocess.run(argv, text=True, capture_output=True, check=True, timeout=60).stdout
    return [*json.loads(said or "{}").values()]


def _census(spools: Mapping[str, Path]) -> Census:
    told: Census = {name: Counter() for name in spools}
    names = ", ".join(f"'{node}.{name}'" for name in spools for node in ("first", "second"))
    for job in _rows(f"job_name IN ({names})"):
        over = job["state"] in ("Terminated", "Error")
        state = "good" if job["exit_code"] == 0 else job["state"] if over else "live"
        told[job["name"].partition(".")[2]][state] += 1
    return told


OAR = Dialect(
    name="oar",
    site="test-oar",
    capabilities=Oar.capabilities,
    adapter=lambda _, run: Oar(run),
    out_of_reach=_out_of_reach,
    mark="#OAR",
    job=("-O /dev/null", "-E /dev/null", "-l core=1,walltime=0:10:0"),
    array=("--array {last}", "-O /dev/null", "-E /dev/null", "-l core=1,walltime=0:10:0"),
    index="$OAR_ARRAY_INDEX",
    element="echo $OAR_JOB_ID",
    refused=("-q nowhere", "ERROR : The queue nowhere does not exist"),
    short_time="30s",  # it looks every ten seconds or so
    on=says("oarstat", "-V"),
    census=_census,
    # Each is a job to it, for which it starts a dozen programs: over half a second of cpu.
    many=1000 if os.environ.get("HPCPIPE_TEST_ALL") else 60,
    slow=3,
    missing=answers("HPCPIPE_TEST_OAR", "oarstat", "-J"),
    begin='exec >>"{log}" 2>&1\n',
    commands=("oarsub", "oarstat", "oarresume", "oardel", "oarnodes"),
    words=('"Hold"', '"Hibernating"'),
    stopped=lambda: stopped(Path(os.environ["HPCPIPE_TEST_OAR"])),
)
