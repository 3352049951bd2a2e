"""A real HTCondor, as ``tests/clusters/htcondor.sh`` starts it; where none is up, a stand-in."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from standins import engine

from contract.dialects import standin
from contract.dialects.base import Census, Dialect, always, answers, says, stopped
from hpcpipe.schedulers.base import run_command
from hpcpipe.schedulers.htcondor import HTCondor as Adapter
from hpcpipe.schedulers.htcondor import classads as jobads
from hpcpipe.schedulers.htcondor.dagman import Dag

READ = """sed -n 's/^{name} = "*\\([^"]*\\)"*$/\\1/p' $_CONDOR_JOB_AD"""
DAG, NODE = READ.format(name="DAGManJobId"), READ.format(name="DAGNodeName")


def _version() -> str:
    return f"HTCondor {says('condor_version')().split()[1]}"


def _out_of_reach(home: Path) -> dict[str, str]:
    dead = home / "dead.conf"
    conf = Path(os.environ["CONDOR_CONFIG"]).read_text()
    # The schedd of another host, of which the collector is to be asked: nothing listens on port 9.
    dead.write_text(f"{conf}\nSCHEDD_HOST = away@127.0.0.1\nCOLLECTOR_HOST = 127.0.0.1:9\n")
    return {"CONDOR_CONFIG": str(dead)}


def _census(spools: Mapping[str, Path]) -> Census:
    """Count nodes by workflow, those too that DAGMan has not submitted yet."""
    told: Census = {name: Counter() for name in spools}

    def ask(command: str) -> list[tuple[Counter[str], jobads.Row]]:
        ads = jobads.rows(run_command((command, *jobads.question())))
        named = [(Path(ad["Iwd"]).parent.name, ad) for ad in ads]
        return [(told[name], ad) for name, ad in named if name in told]

    dags = {ad["ClusterId"]: (of, ad) for of, ad in ask("condor_q") if "HpcpipeDag" in ad}
    for of, ad in dags.values():
        of["live"] += len(Dag(Path(ad["Iwd"]), ad["HpcpipeDag"]).elements)
    for of, ad in ask("condor_history"):
        if "DAGNodeName" in ad:
            good = ad["JobStatus"] == 4 and ad.get("ExitCode") == 0
            of["good" if good else "bad"] += 1
            of["live"] -= ad["DAGManJobId"] in dags
    return told


def _census_of_standin(spools: Mapping[str, Path]) -> Census:
    """Count nodes by workflow, those too that DAGMan has not submitted yet."""
    told: Census = {name: Counter() for name in spools}
    run_command(("condor_q", *jobads.question()))  # without a daemon, what defers looks again so
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


REAL = Dialect(
    name="htcondor",
    site="test-htcondor",
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=_out_of_reach,
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
    refused=("initialdir = /nonexistent/dir", "ERROR: No such directory: /nonexistent/dir"),
    lets_go=False,  # DAGMan looks at a node that was cancelled when it could have begun
    short_time="30s",  # what is to use too much memory must have started by then
    on=_version,
    census=_census,
    missing=answers("HPCPIPE_TEST_HTCONDOR", "condor_q", "-totals"),
    commands=(
        "condor_submit_dag",
        "condor_submit",
        "condor_q",
        "condor_history",
        "condor_release",
        "condor_rm",
        "condor_config_val",
    ),
    late=False,  # condor_submit_dag says something before it submits, and ends if nobody reads that
    # One more condor_submit is what condor_submit_dag runs.
    aligned=("condor_release", *["condor_submit"] * 3, "condor_submit_dag"),
    words=('"JobStatus": 5', '"JobStatus": 99'),
    stopped=lambda: stopped(Path(os.environ["HPCPIPE_TEST_HTCONDOR"])),
)

HTCONDORS_STANDIN = replace(
    REAL,
    site=standin.site("htcondor", "normal"),
    out_of_reach=standin.out_of_reach,
    variables=standin.variables("htcondor"),
    end=standin.end,
    short_time="6s",  # what is to use too much memory must have started by then
    on=lambda: "a stand-in, after samples of HTCondor 23.9.6 and 25.14",
    real=False,
    census=_census_of_standin,
    missing=always,
    aligned=("condor_release", "condor_submit", "condor_submit", "condor_submit_dag"),
    many=300,  # each a job to the stand-in, which goes through all of them at each end
    stopped=None,
)

HTCONDOR = REAL if os.environ.get("HPCPIPE_TEST_HTCONDOR") else HTCONDORS_STANDIN
