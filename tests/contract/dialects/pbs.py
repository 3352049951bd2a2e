"""A stand-in for OpenPBS; or a real one, of which ``HPCPIPE_TEST_PBS`` names a site file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from contract.dialects import standin
from contract.dialects.base import Census, Dialect, answers, nothing, says
from hpcpipe.schedulers.base import run_command
from hpcpipe.schedulers.pbs import PBS as Adapter
from hpcpipe.schedulers.pbs import qstat

ASKED = ("-N try", "-j oe", "-o localhost:/dev/null", "-l select=1:ncpus=1:mem=50mb",
         "-l walltime=00:10:00")  # fmt: skip


def _census(spools: Mapping[str, Path]) -> Census:
    told: Census = {name: Counter() for name in spools}
    asked = run_command(("qstat", "-x", "-t", "-f"))
    for job, row in qstat.read(asked.stdout).items():
        folder = row["Variable_List"].get("HPCPIPE_FOLDER", "")
        if "[]" in job or (name := Path(folder).parent.name) not in told:
            continue
        end = qstat.end(row) if row["job_state"] in Adapter.over else None
        good = end is not None and (end.exit_code, end.reason) == (0, None)
        told[name]["live" if end is None else "good" if good else "bad"] += 1
    return told


def _out_of_reach(home: Path) -> dict[str, str]:
    dead = home / "dead.conf"
    conf = Path(os.environ.get("PBS_CONF_FILE", "/etc/pbs.conf")).read_text()
    dead.write_text(f"{conf}\nPBS_BATCH_SERVICE_PORT=9\n")  # where nothing listens
    return {"PBS_CONF_FILE": str(dead)}


STANDIN = Dialect(
    name="pbs",
    site=standin.site("pbs", "workq"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#PBS",
    job=ASKED,
    array=("-J {first}-{last}", *ASKED),
    index="$PBS_ARRAY_INDEX",
    element="echo $PBS_JOBID",
    begin=standin.FOLDER,
    variables=standin.variables("pbs", PBS_SERVER="pbshost"),
    end=standin.end,
    refused=("-q nowhere", "qsub: Unknown queue"),
    short_time="6s",  # what is to use too much memory must have started by then
    on=lambda: "a stand-in, after samples of OpenPBS 23.06.06",
    real=False,
    census=_census,
    commands=("qsub", "qstat", "qselect", "qrls", "qdel"),
    words=("job_state = Q", "job_state = Hibernating"),
)

REAL = replace(
    STANDIN,
    site=os.environ.get("HPCPIPE_TEST_PBS", ""),
    out_of_reach=_out_of_reach,
    variables=nothing,
    end=nothing,
    short_time="15s",  # MoM looks that often
    on=says("qstat", "--version"),
    real=True,
    missing=answers("HPCPIPE_TEST_PBS", "qstat", "-B"),
)

PBS = REAL if os.environ.get("HPCPIPE_TEST_PBS") else STANDIN
