"""Scripts as they are submitted: golden texts, and commands run by sh, whatever is in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab

from hpcpipe import Workflow, each, task
from hpcpipe.jobs import Capabilities
from hpcpipe.keys.plan import make_plan
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.compile import make_batches
from hpcpipe.resources import Resources
from hpcpipe.schedulers import REGISTRY, make_scheduler
from hpcpipe.schedulers.lsf.options import Options as LSF
from hpcpipe.schedulers.oar.options import Options as Oar
from hpcpipe.schedulers.pbs.options import Options as PBS
from hpcpipe.schedulers.sge.options import Options as Sge
from hpcpipe.schedulers.slurm.options import Options as Slurm
from hpcpipe.schedulers.torque.options import Options as Torque
from hpcpipe.site import (
    Account,
    Environment,
    Queue,
    Scratch,
    Site,
    Software,
)
from hpcpipe.site import Limits as SiteLimits
from hpcpipe.site.route import route
from hpcpipe.submit.mail import Mail
from hpcpipe.submit.render import make_job, make_mail, render
from hpcpipe.submit.sums import Sums
from hpcpipe.worker.outcome import OVER_MEMORY

ODD = 'it\'s a "cwd" \\ of\n$(touch pwned) `touch pwned` Zoë ${HOME} %a ;&|'
SHELLS = [["/bin/sh"], *([["bash", "--posix"]] if shutil.which("bash") else [])]


# Golden texts


def python_task(x: int) -> int:
    return x


def python_array() -> Batch:
    workflow = Workflow("wf", source=__file__)
    workflow.add(python_task, x=each([1, 2, 3], axis="n"), name="smooth")
    return batch(workflow)


def command_array() -> Batch:
    workflow = Workflow("wf", source=__file__)
    workflow.command("bet {image} {brain}", image=each(["a", "b"]), outputs={"brain": "brain.nii"})
    return batch(workflow)


def batch(workflow: Workflow) -> Batch:
    [made] = make_batches(make_plan(workflow), Capabilities(), Limits())
    return made


def sparse() -> Batch:
    array = python_array()
    return replace(array, indices=(1, 4, 5))


def plain() -> Batch:
    array = python_array()
    return replace(array, indices=None, tasks=array.tasks[:1])


def asking() -> Batch:
    asked = Resources(cpus=4, memory=4096, time=5400, gpus=2, queue="gpu", account="lab")
    return replace(plain(), resources=asked)


BARE = Site(name="golden")
FULL = Site(
    name="golden",
    environment=Environment(
        prologue=("module purge", 'module load "fsl/6.0"'),
        variables={"FSLDIR": "/opt/it's fsl", "EMPTY": ""},
    ),
    queues=(Queue(name="gpu", max_gpus=4, options=("--qos=gpu", "--constraint=a|b")),),
    tables={
        "slurm": Slurm(options=("--exclusive=user",), requeue=True, nice=50),
        "pbs": PBS(options=("-l place=free",), account="-P "),
        "lsf": LSF(account="-G ", memory_per_slot=True),
        "torque": Torque(options=("-l feature=a|b",)),
        "sge": Sge(options=("-l os=linux",), requeue=True),
        "oar": Oar(options=("-p fsl = 'YES'", "-t besteffort"), core="cpu"),
    },
)
WATCHED = replace(FULL, limits=SiteLimits(watch_memory=True))
ROUTED = Site(
    name="golden",
    refused=("--no-requeue", "--open-mode"),
    environment=Environment(shell="/bin/bash -l", launcher="srun --mpi=pmix"),
    scratch=Scratch(local="$TMPDIR", option="--gres=lscratch:{gb}"),
    queues=(
        Queue(
            name="taskfarm",
            spelled="standard",
            options=("--qos=taskfarm",),
            max_gpus=1,
            gpu_models={"a100": "a100_1g.5gb"},
            constraints={"nvme": "nvme", "fast": "hdr"},
        ),
    ),
    software={
        "fsl": Software(version="6.0.7", setup=("module load biology", "module load fsl/6.0.7")),
        "spm": Software(version="12", setup=("module load spm",), licences=("matlab:1",)),
    },
    accounts={"lab": Account(options=("--wckey=paid",))},
    tables={
        "slurm": Slurm(memory="cpu", gpus="gres", signal="TERM@60", cluster="abel", nodes=True)
    },
)


def routed() -> Batch:
    asked = Resources(
        cpus=3, memory=4096, time=90, gpus=1, account="lab", scratch=1500, throttle=2,
        requires=("a100", "fast", "nvme"), software=("fsl>=6", "spm12"),
    )  # fmt: skip
    return replace(command_array(), resources=asked)


def beside() -> Batch:
    """Two elements of two lanes, of strands of two tasks that want a GPU each."""
    workflow = Workflow("wf", source=__file__)
    first = workflow.command("strip {n}", n=each(range(8)))
    workflow.command("warp {n}", n=each(range(8), axis="n"), after=[first])
    asked = Resources(cpus=2, gpus=1, memory=4096, time=600)
    limits = Limits(packs={asked: 4}, lanes={asked: 2})
    seconds = {name: [1.0] * 8 for name in workflow.nodes}  # else nothing is fused unasked
    plan = make_plan(workflow, resources=asked)
    [made] = make_batches(plan, Capabilities(), limits, lambda: seconds)
    return made


WHOLE = Site(name="golden", queues=(Queue(name="whole", exclusive=True, max_cpus=4, max_gpus=2),))

CASES: dict[str, tuple[Callable[[], Batch], Site, str]] = {
    "python-array": (python_array, BARE, "/data/here"),
    "command-array": (command_array, BARE, "/data/here"),
    "sparse-array": (sparse, BARE, "/data/here"),
    "plain-job": (plain, BARE, "/data/here"),
    "all-that-can-be-asked": (asking, FULL, "/data/here"),
    "memory-watched": (asking, WATCHED, "/data/here"),
    "routed": (routed, ROUTED, "/data/here"),
    "odd-folder": (command_array, BARE, f"/data/{ODD}"),
    "side-by-side": (beside, WHOLE, "/data/here"),
}


def tries(scheduler: str, case: str) -> bool:
    """Return whether a case is tried on a scheduler.

    Where arrays are ranges, there is no sparse one. Memory is watched, and tasks run side by side,
    in the same words everywhere.
    """
    if case == "mail":
        return make_scheduler(scheduler).capabilities.mail
    if case == "sparse-array":
        return make_scheduler(scheduler).capabilities.sparse
    return {"memory-watched": "oar", "side-by-side": "slurm"}.get(case, scheduler) == scheduler


def mail_to(to: str, scheduler: str) -> str:
    site = replace(BARE, scheduler=scheduler)
    mail = Mail(to, "me", ('wf (run 3)   finished: it\'s "all" $HOME', "  work  3 done"))
    where = route(Resources(cpus=1, memory=256, time=300), site)
    return render(make_mail("+mail-3", "failed.wf-3", mail, where, site, "wf"), site)


def script_of(scheduler: str, case: str) -> str:
    if case == "mail":
        return mail_to("ada@example.org", scheduler)
    make, site, cwd = CASES[case]
    site = replace(site, scheduler=scheduler)
    made, first = make(), make_scheduler(scheduler).capabilities.first_index
    if made.indices:
        made = replace(made, indices=[index + first for index in made.indices])
    where = route(made.resources.times(1, made.turns), site, made.lanes)
    sums = Sums("b2" * 32, "5a" * 32)
    job = make_job(made, "node-0a1b2c3d", where, site, "wf", cwd, place=2, sums=sums)
    return render(replace(job, executable="/opt/an env/bin/python3"), site)


# DRMAA has the scripts of its dialect.
@pytest.mark.parametrize("scheduler", [name for name in REGISTRY if name != "drmaa"])
def test_a_script_is_as_it_was(
    scheduler: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcpipe.submit.render.__version__", "1.2.3")
    heads = []
    _, command = parts(script_of(scheduler, "command-array"))
    for case in (*CASES, "mail"):
        if not tries(scheduler, case):
            continue
        script = script_of(scheduler, case)
        subprocess.run(["/bin/sh", "-n"], input=script.encode(), check=True)
        head, body = parts(script)
        heads.append(f"==> {case}\n{head}")
        if body.startswith("fail()") and case != "command-array":  # only what differs from that
            lines = unified_diff(command.splitlines(), body.splitlines(), n=1, lineterm="")
            body = "\n".join("@@" if line[:2] == "@@" else line for line in [*lines][2:]) + "\n"
        golden(f"scripts/body/{case}.sh", body)  # the same for all schedulers
    golden(f"scripts/{scheduler}.txt", "\n".join(heads))


def parts(script: str) -> tuple[str, str]:
    """Split a script into what depends on the scheduler, and what does not."""
    head, body = re.split(r"(?m)^(?=fail\(\) |python=|page=|printf '%s\\n' )", script, maxsplit=1)
    return head, body


@pytest.mark.parametrize("scheduler", [name for name in REGISTRY if tries(name, "mail")])
def test_mail_without_an_address_is_for_the_user(scheduler: str) -> None:
    script = mail_to("", scheduler)
    assert not re.search(r"(?m)^#\S+ (--mail-user|-M \D|-u|notify_user)", script)
    assert ("]mail:me\n" in script) == (scheduler == "oar")


def test_each_batch_is_nicer_than_the_one_before(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = lab.scheduler
    monkeypatch.setattr("hpcpipe.schedulers.slurm.Slurm", lambda **_: fake)
    lab.site = replace(lab.site, scheduler="slurm", tables={"slurm": Slurm(nice=20)})
    first = lab.workflow.command("echo {n}", n=each([1, 2]), name="first")
    second = lab.workflow.command("echo", name="second", after=[first])
    lab.workflow.command("echo", name="third", after=[second])
    lab.submit()
    found = {
        file.name.partition("-")[0]: re.findall(r"--nice=(\d+)", file.read_text())
        for file in lab.rundir.batches.glob("*.sh")
    }
    assert found == {"first": [], "second": ["20"], "third": ["40"]}


def test_every_golden_script_is_one_of_a_case(pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath / "tests" / "golden" / "scripts"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*.*")}
    heads = {f"{name}.txt" for name in REGISTRY if name != "drmaa"}
    assert found == heads | {f"body/{case}.sh" for case in (*CASES, "mail")}


# Commands, run by sh

DUMP = "import os, sys; os.write(1, b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
NASTY = [
    "",
    " ",
    "two words",
    "line\nline\n",
    "\n\n",
    "'",
    '"',
    "it's \"quoted\" 'twice'",
    "$(touch pwned)",
    "`touch pwned`",
    "${newline}$1$@$HOME",
    "'\"$newline\"'",
    "a;touch pwned & touch pwned | touch pwned > pwned",
    "-n",
    "--",
    "-rf",
    "\\",
    "\\n\\\\ \\",
    "%s%d%n",
    "*",
    "~",
    "#no comment",
    "!!",
    "{image}",
    "a=b",
    "Zoë 脳 🧠",
    "\t\r\v\f\x07\x1b[31m",
    "",
]
EVERY_BYTE = [os.fsdecode(bytes([byte])) for byte in range(1, 256)]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_commands_words_arrive_as_they_are(lab: Lab, shell: list[str], locale: str) -> None:
    words = [*NASTY, *EVERY_BYTE, "".join(EVERY_BYTE)]
    lab.workflow.command([sys.executable, "-ISc", DUMP, "{words}"], name="dump", words=words)
    lab.submit()
    done = lab.run("dump", shell=shell, env={"LC_ALL": locale})
    assert (done.status, done.err) == (0, "")
    assert done.out.split(b"\0") == [os.fsencode(word) for word in words]
    assert not [*Path().rglob("pwned"), *lab.rundir.folder.rglob("pwned")]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_an_odd_output_is_made_and_its_path_is_the_value(lab: Lab, shell: list[str]) -> None:
    names = ["two words", "li\nne", "$(touch pwned)", "-n", "Zoë 脳 🧠", "\\u0041\\"]
    names.append(os.fsdecode(b"not UTF-8: \xff\xe9"))
    lab.workflow.command(
        ["sh", "-c", 'echo made >"$1"', "sh", "{out}"],
        name="make",
        kind=each(names, axis="kind", labels=range(len(names))),
        outputs={"out": "a {kind}"},
    )
    lab.workflow.command("cat {file}", name="read", file=lab.workflow.nodes["make"]["out"])
    lab.submit()
    for number, name in enumerate(names):
        assert lab.run(f"make/{number}", shell=shell).status == 0
        made = lab.value(f"make/{number}")["out"]
        assert made == lab.rundir.folder / "make" / f"kind-{number}" / f"a {name}"
        assert lab.run(f"read/{number}", shell=shell).out == b"made\n"
    assert not [*Path().rglob("pwned"), *lab.rundir.folder.rglob("pwned")]


def test_a_command_runs_in_the_submitters_folder_with_its_umask_and_no_input(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / ODD
    odd.mkdir()
    monkeypatch.chdir(odd)
    lab.workflow.command(["sh", "-c", "pwd -P; umask; cat"], name="work")
    lab.submit()
    done = lab.run("work", umask=0o027, stdin=subprocess.PIPE)
    assert done.status == 0
    assert done.out in (os.fsencode(f"{odd.resolve()}\n{umask}\n") for umask in ("0027", "027"))
    assert not [*tmp_path.rglob("pwned")]


def test_a_commands_outcome_tells_where_and_how_long_it_ran(lab: Lab) -> None:
    lab.workflow.command(["sleep", "0.05"], name="work")
    lab.submit()
    assert lab.run("work").status == 0
    outcome = dict(lab.outcome("work"))
    host = os.uname().nodename
    exact = Path("/proc/uptime").exists()  # else whole seconds
    assert (0.04 if exact else 0) <= outcome.pop("wall") < 30
    assert outcome == {
        "ok": True, "job": "1", "host": host, "attempt": 0, "exit": None, "signal": None,
        "terminated": False, "error": "",
    }  # fmt: skip
    assert lab.value("work") is None


FAILURES: dict[str, tuple[list[str], Mapping[str, Any]]] = {
    "an exit code": (["sh", "-c", "exit 3"], {"error": "exit 3", "exit": 3, "signal": None}),
    "the highest exit code": (["sh", "-c", "exit 255"], {"error": "exit 255", "exit": 255}),
    "no such program": (["./no such program"], {"error": "exit 127", "exit": 127}),
    "no program": ([""], {"ok": False, "signal": None}),
    "a kill": (
        ["sh", "-c", "kill -9 $$"],
        {"error": "killed by signal 9", "exit": None, "signal": 9, "terminated": False},
    ),
    "a fault": (["sh", "-c", "kill -11 $$"], {"error": "killed by signal 11", "signal": 11}),
    "no output": (["true"], {"error": "ended well but did not make a\nresult", "exit": 0}),
}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(("words", "facts"), FAILURES.values(), ids=FAILURES)
def test_each_way_a_command_fails_is_recorded(
    lab: Lab, words: list[str], facts: Mapping[str, Any], shell: list[str]
) -> None:
    lab.workflow.command(words, name="work", outputs="a\nresult")
    lab.submit()
    done = lab.run("work", shell=shell)
    assert done.status == 1
    assert ({"ok": False, "job": "1"} | dict(facts)).items() <= lab.outcome("work").items()
    if words == ["true"]:
        assert f"did not make {lab.rundir.folder}/work/a\nresult" in done.err


def test_every_element_of_a_sparse_array_runs_its_own_command(lab: Lab) -> None:
    first = lab.workflow.command("echo {n}", n=each([1, 2, 3, 4, 5]), name="first")
    twice = each([10, 20, 30, 40, 50], axis="n", labels=[1, 2, 3, 4, 5])
    lab.workflow.command("echo {n}", n=twice, name="second", after=[first])
    lab.submit()
    for name in ("first/1", "second/1", "first/3", "second/3"):
        assert lab.run(name).status == 0
    lab.scheduler.cancel(["2"])
    lab.submit()  # of the second node, for the first is still in flight
    for name in ("first/2", "first/4", "first/5"):
        assert lab.run(name).status == 0
    assert [lab.find(f"second/{n}").index for n in (2, 4, 5)] == [1, 3, 4]
    assert [lab.run(f"second/{n}").out for n in (2, 4, 5)] == [b"20\n", b"40\n", b"50\n"]
    assert lab.outcome("second/4")["job"] == "3_3"


def test_a_plain_job_is_not_led_astray_by_the_array_it_was_submitted_from(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = lab.scheduler
    monkeypatch.setattr("hpcpipe.schedulers.slurm.Slurm", lambda **_: fake)
    lab.site = replace(lab.site, scheduler="slurm")
    lab.workflow.command("echo {n}", n=3, name="work")
    lab.submit()
    inherited = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_JOB_ID": "6", "SLURM_JOB_ID": "9"}
    assert lab.run("work", env=inherited).out == b"3\n"
    assert lab.outcome("work")["job"] == "9"


# Memory, kept by the script

HOGS = """
import os, sys, time
for _ in range(3):  # together, as a limit of each process by itself would not be the job's
    if not os.fork():
        hog = b"x" * (40 << 20)
        time.sleep(600)
time.sleep(600)
"""


@task(memory="100M", time="5m")
def hogs() -> None:
    subprocess.run([sys.executable, "-c", HOGS], check=True)


@task(memory="100M", time="5m")
def raises() -> None:
    raise ValueError("its own")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("python", [True, False])
def test_a_job_that_keeps_its_own_limit_of_memory_is_killed_above_it(
    lab: Lab, shell: list[str], python: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/proc/self/stat").exists():  # no ps is needed there
        (tmp_path / "ps").write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / "ps").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lab.site = replace(lab.site, limits=SiteLimits(watch_memory=True))
    asked = {"memory": "100M", "time": "5m"}
    if python:
        lab.workflow.add(hogs, name="work")
    else:
        lab.workflow.command([sys.executable, "-c", HOGS], name="work", resources=asked)
    lab.submit()
    done = lab.run("work", shell=shell)
    assert done.status == OVER_MEMORY
    assert re.search(
        r"^hpcpipe: used \d{3} MB of memory, 100 MB were asked for: killed$", done.err, re.M
    )
    assert not lab.outcome("work")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_below_it_all_is_as_without(lab: Lab, shell: list[str]) -> None:
    lab.site = replace(lab.site, limits=SiteLimits(watch_memory=True))
    asked = {"memory": "100M", "time": "5m"}
    lab.workflow.command("echo said", name="good", resources=asked)
    lab.workflow.command(["sh", "-c", "exit 3"], name="bad", resources=asked)
    lab.workflow.add(raises)
    lab.submit()
    good = lab.run("good", shell=shell)
    assert (good.status, good.out, good.err) == (0, b"said\n", "")
    assert lab.run("bad", shell=shell).status == 1
    assert lab.outcome("bad")["error"] == "exit 3"
    assert lab.run("raises", shell=shell).status == 1
    assert lab.outcome("raises")["error"] == "ValueError: its own"
