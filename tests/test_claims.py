"""Who holds a task: claims are taken over only from the provably dead, in sh as in Python."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from pickle import dumps

import pytest
from fakes import RUNNING, Done, Element, FakeScheduler, Lab, finished, until
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe import each
from hpcpipe.graph.node import Node
from hpcpipe.worker.claim import ENDED, find_process, is_gone, sign
from hpcpipe.worker.outcome import CANCELLED, CLAIMED, append_outcome, pack_path

HOST, BOOT, PIDNS, ME, START, *_ = sign().split(" ")
Add = Callable[..., Node]
linux = pytest.mark.skipif(BOOT == "-", reason="needs /proc")


def note(n: int, folder: str, wait: bool) -> None:
    """Note that it began, perhaps wait until it may go on, and note that it ended."""
    with open(f"{folder}/ran", "a") as file:
        file.write(f"+{n}\n")
    while wait and not os.path.exists(f"{folder}/go"):
        time.sleep(0.01)
    with open(f"{folder}/ran", "a") as file:
        file.write(f"-{n}\n")


NOTE = """
    echo "+$1" >>"$2/ran"
    if [ "$3" = 1 ]; then until [ -e "$2/go" ]; do sleep 0.01; done; fi
    echo "-$1" >>"$2/ran"
"""


@pytest.fixture(params=["python", "command"])
def add(request: pytest.FixtureRequest, lab: Lab) -> Add:
    """Make a node of tasks that note their beginning and their end in the file ``ran``."""

    def add(count: int = 1, *, wait: bool = False) -> Node:
        n, folder = each(range(count), axis="n"), str(Path.cwd())
        if request.param == "python":
            node: Node = lab.workflow.add(note, n=n, folder=folder, wait=wait, name="work")
            return node
        words = ["sh", "-c", NOTE, "sh", "{n}", folder, str(int(wait))]
        return lab.workflow.command(words, n=n, name="work")

    return add


@pytest.fixture
def _counting(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have scripts that know how often their element was started: Slurm's."""
    fake: FakeScheduler = lab.scheduler
    monkeypatch.setattr("hpcpipe.schedulers.slurm.Slurm", lambda **_: fake)
    lab.site = replace(lab.site, scheduler="slurm")


def ran() -> list[str]:
    return Path("ran").read_text().split() if Path("ran").exists() else []


def claim(*more: str, **fields: str) -> str:
    """Write a claim as a dead process of this host would have left it, but for some fields."""
    words = {"host": HOST, "boot": BOOT, "pidns": PIDNS, "pid": "4194304", "start": "1"}
    words |= {"attempt": "0", "job": "99_1", "batch": ""}
    return "".join(f"{line}\n" for line in (" ".join((words | fields).values()), *more))


ELSEWHERE = {"host": "elsewhere", "boot": "another"}
CONTAINER = {"pidns": "pid:[1]"}
JOB = {"job": "1_0", "batch": "MINE"}  # the batch that is submitted
CLAIMS = {  # and whether its holder is provably dead, for the second start of job 1_0
    "a process that is gone": (claim(), True),
    "one that lives": (claim(pid=ME, start=START), False),
    "one whose id was used again": (claim(pid=ME, start="1"), True),
    "a killed one whose child lives": (claim(f"{ME} {START}"), False),
    "a killed one whose child's id was used again": (claim(f"{ME} 1"), True),
    "one of this kernel by another host's name": (claim(host="container"), True),
    "one in another pid namespace": (claim(**CONTAINER), False),
    "one on another host": (claim(**ELSEWHERE), False),
    "one before this host was started anew": (claim(boot="another"), True),
    "one elsewhere, of a job that has ended": (claim(ENDED, **ELSEWHERE), True),
    "one in another pid namespace, of a job that has ended": (claim(ENDED, **CONTAINER), True),
    "one that lives, of a job that is said to have ended": (
        claim(ENDED, pid=ME, start=START),
        False,
    ),
    "the first start, elsewhere": (claim(**JOB, **ELSEWHERE), True),
    "the first start, in another pid namespace": (claim(**JOB, **CONTAINER), True),
    "the first start, which lives": (claim(**JOB, pid=ME, start=START), False),
    "this start, elsewhere": (claim(**JOB, **ELSEWHERE, attempt="1"), False),
    "a later start, elsewhere": (claim(**JOB, **ELSEWHERE, attempt="2"), False),
    "another scheduler's job of the same id": (claim(job="1_0", **ELSEWHERE, batch="b"), False),
    "somebody who is just writing it": ("", False),
    "somebody who is just writing the outcome": ("(dVok\nI01\nsVjob\nV1_0\ns", False),
}


@linux
@pytest.mark.usefixtures("_counting")
@pytest.mark.parametrize(("text", "gone"), CLAIMS.values(), ids=CLAIMS)
def test_a_claim_is_taken_over_only_from_the_provably_dead(
    lab: Lab, add: Add, text: str, gone: bool
) -> None:
    add(2)
    lab.submit()
    file = lab.find("work/0").claim
    text = text.replace("MINE", lab.find("work/0").batch)
    file.write_text(text)
    environ = {"SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "0", "SLURM_RESTART_COUNT": "1"}
    done = lab.run("work/0", env=environ)
    if gone:
        assert (done.status, ran(), file.exists()) == (0, ["+0", "-0"], False)
    else:
        assert (done.status, ran(), file.read_text()) == (CLAIMED, [], text)
        assert "is claimed by" in done.err


fields = st.sampled_from(["-", "a", "b"])
attempts = st.sampled_from(["-", "0", "1", "2"])
batches = st.sampled_from(["", "i"])
signed = st.builds(
    "{} {} {} 7 5 {} {} {}\n".format, fields, fields, fields, attempts, fields, batches
)


@given(signed, signed, st.booleans())
def test_no_two_processes_can_find_each_other_dead_and_the_living_here_never_are(
    one: str, two: str, ended: bool
) -> None:
    def lives(*_: str) -> bool:
        return True

    here = one.split(" ")[:3] == two.split(" ")[:3]
    assert not (here and is_gone(one + f"{ENDED}\n" * ended, two, lives))
    if one.split(" ")[5] != "-" != two.split(" ")[5] and one.split(" ")[0] != two.split(" ")[0]:
        assert not (is_gone(one, two, lives) and is_gone(two, one, lives))


def race(lab: Lab, tasks: int, starts: int, before: Callable[[Element], object]) -> None:
    """Start each task several times, some milliseconds apart."""
    for n in range(tasks):
        before(lab.find(f"work/{n}"))
        with ExitStack() as stack:
            processes = []
            for _ in range(starts):
                processes.append(stack.enter_context(lab.start(f"work/{n}")))
                time.sleep(n % 10 / 300)
            assert {finished(one).status for one in processes} <= {0, CLAIMED}


def test_of_two_starts_of_an_element_one_runs_its_task(lab: Lab, add: Add) -> None:
    add(40)
    lab.submit()
    race(lab, 40, 2, lambda _: None)
    assert sorted(ran()) == sorted(f"{edge}{n}" for edge in "+-" for n in range(40))


@linux
def test_of_many_that_find_the_holder_dead_one_takes_over(lab: Lab, add: Add) -> None:
    add(12)
    lab.submit()
    race(lab, 12, 4, lambda element: element.claim.write_text(claim()))
    assert sorted(ran()) == sorted(f"{edge}{n}" for edge in "+-" for n in range(12))
    left = [file.name for file in lab.rundir.home.rglob("*") if ".claim" in file.name]
    assert left == []


@linux
def test_a_ticket_of_one_killed_while_it_took_over_is_passed_by(lab: Lab, add: Add) -> None:
    add()
    lab.submit()
    file = lab.find("work/0").claim
    file.write_text(claim())
    ticket = file.with_name(f"{file.name}1")
    ticket.write_text(claim(pid="4194305"))
    assert lab.run("work/0").status == 0
    assert (ran(), file.exists(), ticket.exists()) == (["+0", "-0"], False, False)


@linux
def test_a_task_that_outlives_its_killed_worker_is_not_joined_by_a_second_start(
    lab: Lab, add: Add
) -> None:
    add(wait=True)
    lab.submit()
    shell = ["sh", "-c", '"$@" & wait', "sh", "/bin/sh"]  # so that the job is not all of its group
    with lab.start("work/0", shell) as process:
        until(ran)
        os.kill(int(lab.find("work/0").claim.read_text().split()[3]), signal.SIGKILL)
        process.wait()
        refused = lab.run("work/0")
        assert (refused.status, ran()) == (CLAIMED, ["+0"])
        Path("go").touch()
        until(lambda: len(ran()) == 2)
        until(lambda: lab.run("work/0").status == 0)
    assert ran() in (["+0", "-0"], ["+0", "-0", "+0", "-0"])  # who would record a command is dead


def begin_and_wait(folder: str, n: int) -> None:
    """Note that it began, wait in a program until it may go on, which notes when it does."""
    del n
    with open(f"{folder}/ran", "a") as file:
        file.write("+\n")
    subprocess.run(["sh", "-c", "until [ -e go ]; do sleep 0.05; done; echo - >>ran"], cwd=folder)


@linux
@pytest.mark.parametrize("packed", [True, False])
def test_what_a_killed_worker_has_started_dies_with_it_and_the_task_runs_again(
    lab: Lab, packed: bool
) -> None:
    n = each(range(1 + packed), axis="n")
    lab.workflow.add(begin_and_wait, name="work", folder=str(Path.cwd()), n=n)
    lab.site = replace(lab.site, limits=replace(lab.site.limits, max_jobs=1 if packed else None))
    lab.submit()
    with lab.start("work/0") as process:
        until(ran)
        process.kill()
        process.wait()
    with lab.start("work/0") as process:
        until(lambda: ran() == ["+", "+"])
        Path("go").touch()
        assert finished(process).status == 0
    time.sleep(0.2)  # in which the first one's program would have gone on
    assert ran() == ["+", "+", "-", *["+", "-"] * packed]


@linux
def test_what_lives_in_a_container_is_not_joined(lab: Lab, add: Add) -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a pid namespace")
    add(wait=True)
    lab.submit()
    with lab.start("work/0", shell=[*words, "/bin/sh"]) as process:
        until(ran)
        assert lab.run("work/0").status == CLAIMED
        Path("go").touch()
        assert finished(process).status == 0
    assert ran() == ["+0", "-0"]


def test_a_task_in_a_pack_is_not_joined_by_that_of_a_later_batch(lab: Lab, add: Add) -> None:
    add(2, wait=True)
    lab.site = replace(lab.site, limits=replace(lab.site.limits, max_jobs=1))
    lab.submit()
    first = lab.find("work/0")
    lab.scheduler.cancel([first.job])  # it takes its time to end
    lab.submit()
    assert lab.find("work/0").batch != first.batch
    with lab.start(first) as process:
        until(ran)
        with lab.start("work/0") as second:
            until(lambda: lab.outcome("work/0").get("barred") == CLAIMED)
            Path("go").touch()
            done: Done = finished(second)
        assert finished(process).status == 0
    assert "is claimed by" in done.err
    for n in "01":  # perhaps again, but never beside
        seen = "".join(line[0] for line in ran() if line[1] == n)
        assert seen in ("+-", "+-+-")
    left = [file for file in lab.rundir.home.rglob("*") if ".claim" in file.name]
    assert left == []


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("later_first", [True, False])
def test_a_task_that_was_submitted_again_runs_once_though_its_first_pack_is_requeued(
    lab: Lab, add: Add, packed: bool, later_first: bool
) -> None:
    count = 3 if packed else 2
    add(count)
    lab.site = replace(lab.site, limits=replace(lab.site.limits, max_jobs=1))
    lab.submit()
    earlier = lab.find("work/0")
    pack = lab.rundir.home / pack_path(earlier.batch, 0)
    lab.scheduler.says |= dict.fromkeys(lab.scheduler.says, RUNNING)
    for n in range(count - 1):  # the last one makes the element go on
        append_outcome(str(pack), lab.find(f"work/{n}").good.stem, False, {"exit": 3}, dumps(None))
    lab.submit()
    later = lab.find("work/0")
    assert len({one.batch for one in (earlier, later, lab.find("work/1"))}) == 2
    order = (later, earlier) if later_first else (earlier, later)
    assert [lab.run(one).status for one in order] == [0, 0]
    assert sorted(ran()) == sorted(f"{edge}{n}" for edge in "+-" for n in range(count))
    keys = {lab.find(f"work/{n}").good.stem for n in range(count)}
    assert lab.store.has(["work"])["work"].succeeded == keys
    lab.store.disown("work", later.good.stem)
    assert lab.store.has(["work"])["work"].succeeded == keys - {later.good.stem}
    assert not [file for file in lab.rundir.home.rglob("*") if ".claim" in file.name]


@pytest.mark.parametrize("packed", [True, False])
def test_what_waits_for_a_job_that_finds_its_tasks_done_elsewhere_goes_on(
    lab: Lab, add: Add, packed: bool
) -> None:
    count = 3 if packed else 2
    work = add(count)
    if work.call is note:  # of the other kind, or both would be in one pack
        lab.workflow.command(["true"], name="next", after=[work])
    else:
        lab.workflow.add(os.getpid, name="next", after=[work])
    lab.site = replace(lab.site, limits=replace(lab.site.limits, max_jobs=2))
    lab.submit()
    earlier = lab.find("work/0")
    pack = lab.rundir.home / pack_path(earlier.batch, 0)
    lab.scheduler.says |= dict.fromkeys(lab.scheduler.says, RUNNING)
    beside = lab.rundir.home / pack_path(lab.find("next/0").batch, 0)
    for n in range(count - 1):  # the last one makes the element go on
        for name, file in (("work", pack), ("next", beside)):
            key = lab.find(f"{name}/{n}").good.stem
            append_outcome(str(file), key, False, {"exit": 3}, dumps(None))
    lab.submit()
    later = lab.find("work/0")
    assert later.batch != earlier.batch
    assert [lab.run(one).status for one in (earlier, later)] == [0, 0]
    assert sorted(ran()) == sorted(f"{edge}{n}" for edge in "+-" for n in range(count))
    assert lab.run("next/0").status == 0
    assert lab.find("next/0").good.stem in lab.store.has(["next"])["next"].succeeded
    assert not [file for file in lab.rundir.home.rglob("*") if ".claim" in file.name]


@pytest.mark.parametrize("indices", [None, [1, 2]])
def test_what_was_cancelled_before_it_began_does_not_begin(
    lab: Lab, add: Add, indices: list[int] | None
) -> None:
    add(13)
    lab.submit()
    lab.store.cancel(lab.find("work/0").batch, indices)
    codes = {n: lab.run(f"work/{n}").status for n in (1, 2, 12)}
    assert codes == {1: CANCELLED, 2: CANCELLED, 12: 0 if indices else CANCELLED}
    assert ran() == (["+12", "-12"] if indices else [])


@linux
def test_claims_of_a_job_that_has_ended_are_taken_over_but_not_from_what_is_seen_to_live(
    lab: Lab, add: Add
) -> None:
    add(5)
    lab.submit()
    theirs = claim(**ELSEWHERE)
    mine = claim(**ELSEWHERE, batch="mine")
    texts = [mine, claim(pid=ME, start=START, batch="mine"), "half an outcome", mine, theirs]
    found = [lab.find(f"work/{n}") for n in range(5)]
    for element, text in zip(found, texts, strict=True):
        element.claim.write_text(text)
    ended = [["mine"], ["mine"], ["mine"], [], ["mine"]]
    keys = [element.good.stem for element in found]
    lab.store.end_claims("work", dict(zip(keys, ended, strict=True)))
    assert [lab.run(element).status for element in found] == [0, CLAIMED, 0, CLAIMED, CLAIMED]


@linux
def test_a_process_is_told_from_a_dead_one() -> None:
    assert find_process() == find_process(str(os.getpid())) == (str(os.getpid()), START)
    with subprocess.Popen(["sleep", "60"]) as process:
        assert find_process(str(process.pid))
        process.send_signal(signal.SIGKILL)
        until(lambda: find_process(str(process.pid)) is None)  # though nobody waited for it yet


@linux
@pytest.mark.parametrize("name", ["sh", "a sh", "a) S 1"])
def test_a_claim_names_the_processes_whatever_the_shell_is_called(
    name: str, lab: Lab, tmp_path: Path
) -> None:
    """The kernel's line about a process has its program's name before what the claim takes."""
    said = tmp_path / "said"
    words = [
        *("sh", "-c", 'cat "$1"/results/work/*.claim /proc/$PPID/stat /proc/$$/stat >"$2"', "sh"),
        *(str(lab.rundir.home), str(said)),
    ]
    lab.workflow.command(words, name="work")
    lab.submit()
    (tmp_path / name).symlink_to("/bin/sh")
    assert lab.run("work", shell=(str(tmp_path / name),)).status == 0
    first, second, *stats = said.read_text().splitlines()
    found = [(stat.split()[0], stat.rpartition(")")[2].split()[19]) for stat in stats]
    assert [tuple(first.split()[3:5]), tuple(second.split())] == found
