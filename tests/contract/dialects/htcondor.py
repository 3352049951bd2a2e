"""A stand-in for HTCondor."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from standins import engine

from contract.dialects import standin
from contract.dialects.base import Census, Dialect
from hpcpipe.schedulers.htcondor import HTCondor as Adapter

READ = """sed -n 's/^{name} = "*\\([^"]*\\)"*$/\\1/p' $_CONDOR_JOB_AD"""
DAG, NODE = READ.format(name="DAGManJobId"), READ.format(name="DAGNodeName")


def _census(spools: Mapping[str, Path]) -> Census:
    """Count nodes by workflow, those too that DAGMan has not submitted yet."""
    told: Census = {name: Counter() for name in spools}
    state: engine.State = pickle.loads(Path(os.environ["STANDIN"], "state").read_bytes())
    for job in state.jobs.values():
        name = Path(job.folder).parent.name
        if name not in told:
            continue
        (element,) = job.elements.values()
        if "file" not in job.facts:
            good = element.code == 0 and not element.cause
            told[name]["live" if element.state != "ended" else "good" if good else "bad"] += 1
        elif element.state != "ended":
            lines = Path(job.folder, job.facts["file"]).read_text().splitlines()
            jobs = [line for line in lines if line.startswith("JOB") and "NOOP" not in line]
            begun = [node for node in job.facts.get("nodes", {}).values() if node.cluster]
            told[name]["live"] += len(jobs) - len(begun)
    return told


HTCONDOR = Dialect(
    name="htcondor",
    site=str(standin.STANDINS / "htcondor.toml"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#HTCONDOR",
    job=("should_transfer_files = NO", "request_memory = 50", "allowed_job_duration = 600"),
    array=(
        "hpcpipe_array = {indices}",
        "should_transfer_files = NO",
        "request_memory = 50",
        "allowed_job_duration = 600",
    ),
    index="${node##*_}",
    element=f"""echo $({DAG})/$({NODE})""",
    begin=f'node=$({NODE})\nexec >>"{{log}}" 2>&1\n',
    variables=standin.variables("htcondor"),
    end=standin.end,
    refused=("initialdir = /nonexistent/dir", "ERROR: No such directory: /nonexistent/dir"),
    short_time="3s",
    on=lambda: "a stand-in, after samples of HTCondor 25.14",
    real=False,
    census=_census,
    commands=(
        "condor_submit_dag",
        "condor_submit",
        "condor_q",
        "condor_history",
        "condor_release",
        "condor_rm",
    ),
    many=300,  # each a job to the stand-in, which goes through all of them at each end
    words=('"JobStatus": 5', '"JobStatus": 99'),
)
