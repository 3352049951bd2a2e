"""What of the submitter's environment reaches a submit command and a task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fakes import Done, Lab

from hpcpipe import each, task
from hpcpipe.frontends.map import map_workflow
from hpcpipe.run import Run
from hpcpipe.schedulers import REGISTRY, find_adapter
from hpcpipe.schedulers.base import CommandScheduler, in_clean_environment, program
from hpcpipe.schedulers.environment import passed, variables
from hpcpipe.schedulers.local import Local
from hpcpipe.schedulers.local.spool import Spool
from hpcpipe.site import Environment, Limits
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.record import read_record

# Options of submit commands, in the submitter's shell or of the cluster's login scripts.
STEERING = {
    "SBATCH_PARTITION": "debug", "SBATCH_TIMELIMIT": "1", "SBATCH_MEM_PER_NODE": "50M",
    "SBATCH_OUTPUT": "/tmp/o", "SBATCH_WAIT": "1", "SBATCH_EXPORT": "NONE", "SALLOC_ACCOUNT": "x",
    "SLURM_HINT": "nomultithread", "SLURM_CLUSTERS": "other", "PBS_DPREFIX": "#other",
    "QSUB_OPTIONS": "-h", "LSB_DEFAULTQUEUE": "slow", "LSB_SUB_ADDITIONAL": "x", "BSUB_QUIET": "1",
    "_CONDOR_JOB_DEFAULT_REQUESTMEMORY": "1", "_condor_submit_exprs": "x",
    "_CONDOR_APPEND_REQUIREMENTS": "false", "OAR_JOB_KEY_FILE": "x",
}  # fmt: skip
# What a job knows of itself; a task submitted from there is none of that.
OUTER = {
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SLURM_CPU_BIND_LIST": "0x1", "SLURM_STEP_ID": "0",
    "SLURM_ARRAY_TASK_ID": "7", "SLURM_NPROCS": "2", "SLURM_DISTRIBUTION": "cyclic",
    "SLURM_JOB_ID": "9", "SLURMD_NODENAME": "n1", "JOB_ID": "7", "SGE_TASK_ID": "2", "NSLOTS": "4",
    "RESTARTED": "1", "QUEUE": "all.q", "PE": "smp", "PBS_JOBID": "3", "PBS_ARRAY_INDEX": "4",
    "PBS_ARRAYID": "4", "NCPUS": "2", "OAR_ARRAY_INDEX": "2", "LSB_JOBINDEX": "3",
    "_CONDOR_JOB_AD": "/x", "FLUX_JOB_CC": "1", "PMI_RANK": "1", "OMPI_COMM_WORLD_RANK": "0",
    "HPCPIPE_INDEX": "8", "HPCPIPE_JOB_ID": "5", "CUDA_VISIBLE_DEVICES": "3",
}  # fmt: skip
KEPT = {
    "SLURM_CONF": "/etc/slurm.conf", "SGE_ROOT": "/opt/sge", "SGE_QMASTER_PORT": "1",
    "PBS_CONF_FILE": "/etc/pbs.conf", "LSF_ENVDIR": "/etc", "CONDOR_CONFIG": "/etc/condor",
    "_CONDOR_SCHEDD_HOST": "ap.lab", "FLUX_URI": "local:///x", "HPCPIPE_SITE": "lab",
    "OMPI_MCA_btl": "tcp", "MPI_HOME": "/opt/mpi", "STUDY": "two\nlines", "JOB_NAME_OF_MINE": "x",
}  # fmt: skip
SESSION = {
    "DISPLAY": ":1",
    "SSH_TTY": "/dev/pts/1",
    "XDG_RUNTIME_DIR": "/run/user/1",
    "TMPDIR": "/x",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    variables = STEERING | OUTER | SESSION | KEPT
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def adapters() -> list[str]:
    """Name the adapters whose submit command is started as a command."""
    return [name for name in REGISTRY if issubclass(find_adapter(name).scheduler, CommandScheduler)]


@pytest.mark.parametrize("name", adapters())
def test_a_submit_command_sees_nothing_that_would_change_what_is_asked_for(
    name: str, environment: Mapping[str, str], tmp_path: Path
) -> None:
    adapter = find_adapter(name).scheduler()
    assert isinstance(adapter, CommandScheduler)
    done = adapter.hand_over(("env", "-0"), tmp_path)
    seen = dict(line.partition("=")[::2] for line in done.stdout.split("\0"))
    assert {one for one in environment if one in seen} == {*KEPT}
    assert seen["STUDY"] == "two\nlines"


def test_a_local_task_finds_nothing_of_an_outer_job(
    environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcpipe.schedulers.local.rouse", lambda *_: Spool(tmp_path).make())
    (tmp_path / "batches").mkdir()
    (tmp_path / "logs").mkdir()
    script = tmp_path / "batches" / "x.sh"
    script.write_text("#!/bin/sh\n#HPCPIPE --output=logs/x\n")
    job = Local(tmp_path).submit(script, token="t")
    found = {name.decode() for name in Spool(tmp_path).environment(job)}
    assert found & {*environment} == {*KEPT, "CUDA_VISIBLE_DEVICES"}  # it grants no GPUs itself


@pytest.mark.parametrize("name", REGISTRY)
def test_the_pattern_read_of_an_adapter_is_the_one_it_has(name: str) -> None:
    options = import_module(f"{find_adapter(name).package}.options")
    assert variables().get(name) == getattr(options, "VARIABLES", None)


def test_names_that_many_use_are_of_a_job_only_inside_grid_engine() -> None:
    mine = {"QUEUE": "mine", "ENVIRONMENT": "test", "JOB_NAME": "study"}
    assert passed(mine) == mine
    assert passed(mine | {"SGE_TASK_ID": "undefined"}) == {}


def test_the_program_is_named_whatever_env_is_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_WAIT", "1")
    words = in_clean_environment(("env", "A=b", "sbatch", "x=y"))
    assert words[0] == "env"
    assert "SBATCH_WAIT" in words
    assert program(words) == "sbatch"


# What a task gets, whatever the scheduler passes by itself

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
BASH = shutil.which("bash")
SHELLS = [["/bin/sh"], *([["bash"]] if BASH else [])]


def alone(lab: Lab, task: str, monkeypatch: pytest.MonkeyPatch, *left: str, **options: Any) -> Done:
    """Run a task where a scheduler passes nothing of what was there when it was submitted."""
    for name in (*STEERING, *OUTER, *SESSION, *KEPT, *left):
        monkeypatch.delenv(name, raising=False)
    return lab.run(task, **options)


@pytest.mark.usefixtures("environment")
def test_a_task_gets_the_variables_of_the_submitters_shell(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"ODD": 'it\'s $(touch pwned) "`x`"\n\\ü', "LATE": os.fsdecode(b"\xff"), "EMPTY": ""}
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    lab.workflow.command([sys.executable, "-c", SHOW], name="show")
    lab.submit()
    done = alone(lab, "show", monkeypatch, *odd)
    found = json.loads(done.out)
    assert found.items() >= (KEPT | odd).items()
    assert not found.keys() & (STEERING | OUTER).keys() - {"HPCPIPE_JOB_ID"}
    assert not found.keys() & SESSION.keys()


@pytest.mark.usefixtures("environment")
def test_where_a_site_says_so_a_task_gets_only_what_the_scheduler_passes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.site = replace(lab.site, environment=Environment(inherit=False))
    lab.workflow.command([sys.executable, "-c", SHOW], name="show")
    lab.submit()
    assert not json.loads(alone(lab, "show", monkeypatch).out).keys() & {*KEPT}


@pytest.mark.parametrize("python", [True, False])
def test_threads_are_those_of_the_cpus_and_not_of_the_login_shell(
    lab: Lab, python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM"):
        monkeypatch.setenv(f"{name}_NUM_THREADS".replace("MAXIMUM_NUM", "MAXIMUM"), "64")
    lab.site = replace(lab.site, environment=Environment(variables={"MKL_NUM_THREADS": "2"}))
    if python:
        lab.workflow.add(threads, name="show")
    else:
        lab.workflow.command([sys.executable, "-c", SHOW], name="show", resources={"cpus": 3})
    lab.submit()
    done = lab.run("show")
    found = lab.value("show") if python else json.loads(done.out)
    seen = {name: value for name, value in found.items() if "THREADS" in name}
    assert seen == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}


@task(cpus=3)
def threads() -> dict[str, str]:
    return dict(os.environ)


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.parametrize("python", [True, False])
def test_exported_functions_reach_a_task(
    lab: Lab, python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = "BASH_FUNC_module%%"
    monkeypatch.setenv(function, '() {  echo "loads $1"\n echo it\\\'s\n}')
    if python:
        lab.workflow.add(loads, name="load")
    else:
        lab.workflow.command(["bash", "-c", "module fsl"], name="load")
    lab.submit()
    assert alone(lab, "load", monkeypatch, function).out == b"loads fsl\nit's\n"


@task
def loads() -> None:
    subprocess.run(["bash", "-c", "module fsl"], check=True)


@pytest.mark.skipif(not BASH, reason="bash is not installed")
def test_a_line_of_a_file_may_use_what_only_bash_has(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "setup").write_text("NAMES=(a b)\n")
    (tmp_path / "jobs").write_text(
        f"source {tmp_path}/setup && [[ -n ${{NAMES[1]}} ]] && echo ${{NAMES[1]}}\n"
    )
    folder = str(lab.workflow.folder.parent)
    lab.workflow = map_workflow([], lines=str(tmp_path / "jobs"), name="lab", base_dir=folder)
    lab.submit()
    label = read_record(lab.rundir, 1).nodes["lab"].label(0)
    assert lab.run(f"lab/{label}").out == b"b\n"


# Signals

HEARS = """
import os, signal, sys, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("heard", signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL)
"""


@task(memory="1G", time="5m")
def hears() -> None:
    exec(HEARS)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("kind", ["python", "env", "perl"])
def test_a_task_hears_an_interrupt(
    lab: Lab, shell: list[str], kind: str, watched: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked = {"memory": "1G", "time": "5m"}
    lab.site = replace(lab.site, limits=Limits(watch_memory=watched))
    if kind == "python":
        lab.workflow.add(hears, name="work")
    else:
        lab.workflow.command([sys.executable, "-c", HEARS], name="work", resources=asked)
    if kind == "perl":  # as where coreutils are old
        old = tmp_path / "old"
        old.mkdir()
        (old / "env").write_text(
            '#!/bin/sh\ncase $1 in --*) exit 125 ;; esac\nexec /usr/bin/env "$@"\n'
        )
        (old / "env").chmod(0o755)
        monkeypatch.setenv("PATH", f"{old}:{os.environ['PATH']}")
    lab.submit()
    assert lab.run("work", shell=shell).out == b"heard True\n"


def test_a_program_with_an_equals_sign_in_its_name_runs(lab: Lab, tmp_path: Path) -> None:
    program = tmp_path / "a=b"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    lab.workflow.command([str(program)], name="work")
    lab.submit()
    assert lab.run("work").out == b"ran\n"


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.parametrize("mapped", [True, False])
def test_an_exported_function_is_a_command_and_part_of_the_task(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, mapped: bool
) -> None:
    def planned(body: str) -> NodeRecord:
        monkeypatch.setenv("BASH_FUNC_my-hello%%", f'() {{  {body} "{{1}} $1"\n}}')
        if mapped:
            made = map_workflow(["my-hello", "{}", ":::", "it's x"])
            lab.workflow.nodes["my-hello"] = made.nodes["my-hello"]
        else:
            lab.workflow.nodes.clear()
            lab.workflow.command("my-hello {x}", x=each(["it's x"]))
        lab.submit()
        monkeypatch.delenv("BASH_FUNC_my-hello%%")
        return Run(lab.rundir.folder).record.nodes["my-hello"]

    node = planned("printf %s")
    assert lab.run(node.task(0)).out == b"{1} it's x"
    assert planned("echo").key(0) != node.key(0)
