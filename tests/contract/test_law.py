"""The law of adapters, clause by clause, on real schedulers.

Where an order is to be proven no clock is read: the early one waits for a file that the late one
makes, and would wait in vain if the scheduler kept them in any other order.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path

import pytest

from contract.dialects import DIALECTS, Dialect
from contract.harness import Bench, Cluster, until
from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, JobEnd, Reason, State
from hpcpipe.schedulers.base import Done, run_command

NEVER = (Reason.UPSTREAM, Reason.CANCELLED)  # a job ended so that could not start
COMMANDED = [dialect.param for dialect in DIALECTS if dialect.commands]
WAIT = 'wait_for() { for i in $(seq 600); do [ -e "$1" ] && return; sleep 0.1; done; exit 9; }\n'


def codes(ends: Mapping[str, JobEnd]) -> dict[str, int | None]:
    return {element: end.exit_code for element, end in ends.items()}


# --- jobs and arrays ------------------------------------------------------------------------------


def test_a_plain_job_runs_in_its_run_folder_and_its_end_is_known(bench: Bench) -> None:
    began = time.time()
    job = bench.submit("pwd -P")
    element = bench.scheduler.element(job, None)
    end = bench.ends(element)[element]
    assert (end.reason, end.exit_code, end.signal) == (None, 0, None)
    assert end.host
    assert end.wall is not None
    assert end.wall <= ceil(time.time() - began)  # some tell whole seconds
    assert bench.read("logs/out") == f"{bench.folder.resolve()}\n"


@pytest.mark.can("arrays")
def test_an_odd_run_folder_is_just_a_folder(cluster: Cluster) -> None:
    bench = Bench(cluster, cluster.home / cluster.odd)
    job = bench.submit("pwd -P", array=2)
    bench.ends(*bench.elements(job, 2))
    for index in bench.indices(2):
        assert bench.read(f"logs/out.{index}") == f"{bench.folder.resolve()}\n"
    assert not [*cluster.home.rglob("pwned")]


@pytest.mark.can("arrays")
def test_each_element_runs_once_and_ends_in_its_own_way(bench: Bench) -> None:
    job = bench.submit(
        "echo $nth >> ran; case $nth in 1) exit 3;; 2) ulimit -c 0; kill -SEGV $$;; esac", array=4
    )
    elements = bench.elements(job, 4)
    ends = bench.ends(*elements)
    reasons = [ends[one].reason for one in elements]
    assert reasons == [None, Reason.EXIT, Reason.SIGNAL, None]
    assert ends[elements[1]].exit_code == 3
    assert ends[elements[2]].signal == 11
    assert sorted(bench.read("ran").split()) == ["0", "1", "2", "3"]
    bench.gone(job)


@pytest.mark.can("sparse", "elementwise")
def test_an_array_may_have_any_indices(bench: Bench) -> None:
    job = bench.submit("echo $index >> ran", array=(1, 4, 5, 6))
    below = bench.submit("grep -qx $index ran", After(job, "each"), array=(1, 4, 5, 6))
    elements = [
        bench.scheduler.element(one, index) for one in (job, below) for index in (1, 4, 5, 6)
    ]
    assert codes(bench.ends(*elements)) == dict.fromkeys(elements, 0)
    assert sorted(bench.read("ran").split()) == ["1", "4", "5", "6"]


# --- dependencies ---------------------------------------------------------------------------------


@pytest.mark.can("elementwise")
def test_an_aligned_element_waits_for_its_own_and_for_no_other(bench: Bench) -> None:
    above = bench.submit(
        f"{WAIT}[ $nth = 0 ] || wait_for below.0; touch above.$nth", array=2, held=True
    )
    below = bench.submit("touch below.$nth; test -e above.$nth", After(above, "each"), array=2)
    bench.scheduler.release([above])
    elements = [*bench.elements(above, 2), *bench.elements(below, 2)]
    assert codes(bench.ends(*elements)) == dict.fromkeys(elements, 0)


@pytest.mark.can("arrays")
def test_a_gather_waits_for_the_whole(bench: Bench) -> None:
    waits = f"{WAIT}[ $nth -lt 2 ] || wait_for beside; touch $nth"
    above = bench.submit(waits, array=3, held=True)
    beside = bench.submit("touch beside", held=True)
    both = bench.submit("test -e 0 -a -e 1 -a -e 2 -a -e beside", After(above), After(beside))
    bench.scheduler.release([above, beside])
    assert codes(bench.ends(beside, both)) == {beside: 0, both: 0}


@pytest.mark.can("element_dependency")
def test_a_job_may_wait_for_one_element(bench: Bench) -> None:
    above = bench.submit(f"{WAIT}[ $nth -lt 2 ] || wait_for one; touch $nth", array=3)
    one = bench.submit("touch one; test -e 1", After(above, element=bench.indices(3)[1]))
    assert codes(bench.ends(one)) == {one: 0}


@pytest.mark.can("success", "elementwise")
def test_what_waits_for_a_failure_never_runs_and_does_not_stay(bench: Bench) -> None:
    above = bench.submit(f"{WAIT}wait_for go; exit $nth", array=2, held=True)
    each = bench.submit("touch each.$nth", After(above, "each"), array=2)
    last = bench.submit("touch last", After(each), held=True)
    whole = bench.submit("touch whole", After(above))
    bench.scheduler.release([above, last])
    # Slurm pairs elements as it looks for work. Should `above` fail before it looks again, all of
    # `each` would be cancelled; once it has let another job go, it has looked.
    until(lambda: [*bench.states(above).values()] == [State.RUNNING] * 2)
    if bench.scheduler.name == "slurm":  # others may have no room for one more
        looked = bench.submit("true", held=True)
        bench.scheduler.release([looked])
        bench.ends(looked)
    (bench.folder / "go").touch()
    wanted = [*bench.elements(each, 2), last, whole]
    ends = bench.ends(*wanted)
    assert ends[wanted[0]].reason is None
    assert all(ends[one].reason in NEVER for one in wanted[1:])
    bench.gone(above, each, last, whole)
    assert bench.has("each.0")
    assert not any(map(bench.has, ("each.1", "last", "whole")))


@pytest.mark.can("arrays")
def test_what_any_end_will_do_for_runs_after_a_failure_too(bench: Bench) -> None:
    above = bench.submit("touch $nth; exit $nth", array=2, held=True)
    last = bench.submit("test -e 0 -a -e 1", After(above, well=False))
    bench.scheduler.release([above])
    assert codes(bench.ends(last)) == {last: 0}


# --- asking ---------------------------------------------------------------------------------------


@pytest.mark.can("arrays")
def test_many_ids_are_one_question_and_none_is_none(bench: Bench) -> None:
    jobs = [bench.submit(f"{WAIT}wait_for go", array=10, held=True) for _ in range(3)]
    elements = [element for job in jobs for element in bench.elements(job, 10)]
    bench.calls.clear()
    assert bench.scheduler.poll(elements).keys() == set(elements)
    assert bench.scheduler.poll(jobs).keys() == set(elements)
    asked = len(bench.calls)
    assert asked <= 2
    (bench.folder / "go").touch()
    bench.scheduler.release(jobs)
    bench.scheduler.cancel([])
    bench.scheduler.release([])
    assert bench.scheduler.poll([]) == {}
    assert bench.scheduler.account([], 0) == {}
    assert bench.scheduler.find([]) == {}
    assert len(bench.calls) <= asked + 2  # OAR is asked first whether it is there
    bench.ends(*elements)
    bench.calls.clear()
    ends = bench.scheduler.account(jobs, time.time() - 600)
    assert {one: end.reason for one, end in ends.items()} == dict.fromkeys(elements)
    assert len(bench.calls) <= 1
    assert all(type(argv) is tuple for argv in bench.calls)


def test_a_missing_id_is_absent(bench: Bench) -> None:
    job = bench.submit("sleep 300", held=True)
    strangers = ["99999999", bench.scheduler.element("99999998", 3)]
    assert bench.states(job, *strangers).keys() == {job}
    assert bench.states(*strangers) == {}
    assert bench.scheduler.account(strangers, time.time()) == {}
    known = bench.scheduler.account([job, *strangers], time.time())
    assert known.keys() <= {job}
    assert not any(isinstance(said, JobEnd) for said in known.values())
    assert bench.scheduler.find(["no such token"]) == {}
    bench.scheduler.cancel([*strangers, job])
    bench.gone(job)
    bench.scheduler.cancel([job])


@pytest.mark.can("hold")
def test_what_is_held_waits_to_be_released(bench: Bench) -> None:
    job = bench.submit("exit 0", held=True)
    many = bench.submit("exit 0", After(job), array=4)
    assert bench.states(job) == {job: State.HELD}
    assert set(bench.states(many).values()) == {State.QUEUED}
    bench.scheduler.release([job])
    elements = bench.elements(many, 4)
    assert codes(bench.ends(job, *elements)) == dict.fromkeys([job, *elements], 0)


@pytest.mark.can("arrays")
def test_what_is_live_is_found_by_its_token(bench: Bench) -> None:
    mine = f"{bench.folder.parent.name}-1"
    job = bench.submit(f"{WAIT}wait_for go", token=mine)
    many = bench.submit("exit 0", After(job), array=4, token="many of " + mine)
    wanted = [mine, "many of " + mine]
    found = {mine: job, "many of " + mine: many}
    assert bench.scheduler.find([*wanted, "never"]) == found
    (bench.folder / "go").touch()
    until(lambda: not bench.scheduler.find(wanted))


@pytest.mark.can("arrays")
def test_one_element_is_cancelled_or_all_of_a_job(bench: Bench) -> None:
    job = bench.submit("echo > started.$nth; sleep 300", array=2)
    waits = bench.submit("touch waited", After(job))
    zero, one = bench.elements(job, 2)
    until(lambda: bench.has("started.0") and bench.has("started.1"))
    bench.scheduler.cancel([one])
    assert bench.ends(one)[one].reason is Reason.CANCELLED
    assert bench.states(job) == {zero: State.RUNNING}
    bench.scheduler.cancel([job])
    bench.gone(job, waits)
    assert bench.ends(zero)[zero].reason is Reason.CANCELLED
    assert not (bench.has("waited") and bench.scheduler.capabilities.success)


@pytest.mark.can("arrays", "hold")
def test_the_element_that_is_cancelled_is_the_one_that_was_meant(bench: Bench) -> None:
    """Of more than 32, which is where Flux begins to give ids in no order."""
    count, mine = int(40 / bench.cluster.dialect.slow), f"{bench.folder.parent.name}-which"
    job = bench.submit("touch ran.$nth", token=mine, array=count, held=True)
    elements = bench.elements(job, count)
    which = count * 2 // 3
    bench.scheduler.cancel([elements[which]])
    until(lambda: elements[which] not in bench.states(job))
    left = [element for element in elements if element != elements[which]]
    found = bench.elements(bench.scheduler.find([mine])[mine], count)
    assert [element for nth, element in enumerate(found) if nth != which] == left
    with suppress(SchedulerError):  # Slurm's, of the one that is gone
        bench.scheduler.release([job])
    bench.gone(job)
    ran = {int(file.suffix[1:]) for file in bench.folder.glob("ran.*")}
    assert ran == {*range(count)} - {which}


# --- when it does not go well ---------------------------------------------------------------------


@pytest.mark.can("refuses")
def test_a_refusal_begins_with_the_schedulers_own_words(bench: Bench) -> None:
    directive, words = bench.cluster.dialect.refused
    script = bench.script("exit 0", (), directive)
    with pytest.raises(SchedulerError) as refused:
        bench.scheduler.submit(script, token="t")
    assert not isinstance(refused.value, SchedulerUnavailable)
    assert str(refused.value).startswith(words.format(script=script))


VERBS: dict[str, Callable[[Bench], object]] = {
    "submit": lambda bench: bench.submit("exit 0"),
    "release": lambda bench: bench.scheduler.release(["1"]),
    "poll": lambda bench: bench.scheduler.poll(["1"]),
    "account": lambda bench: bench.scheduler.account(["1"], 0),
    "cancel": lambda bench: bench.scheduler.cancel(["1"]),
    "find": lambda bench: bench.scheduler.find(["t"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_scheduler_that_does_not_answer_is_unavailable(
    cluster: Cluster, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = cluster.out_of_reach()
    for name, value in away.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SchedulerUnavailable, match=r"\w"):
        VERBS[verb](Bench(away, away.home / "run"))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("dialect", COMMANDED)
def test_a_host_without_the_schedulers_commands_is_no_login_node(
    dialect: Dialect, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere:/usr/local/nowhere")
    with pytest.raises(SchedulerUnavailable, match="not found; is this a login node"):
        VERBS[verb](Bench(Cluster(dialect, tmp_path), tmp_path / "run"))


@pytest.mark.can("commands", "arrays")
def test_a_word_never_seen_is_unknown_and_kept(cluster: Cluster) -> None:
    held, odd = cluster.dialect.words

    def of_the_future(argv: Sequence[str], cwd: Path | None) -> Done:
        done = run_command(argv, cwd)
        return done._replace(stdout=done.stdout.replace(held, odd))

    bench = Bench(cluster, cluster.home / "run")
    job = bench.submit("exit 0", array=2, held=True)
    polled = cluster.dialect.adapter(cluster.spool, of_the_future).poll([job])
    assert polled.keys() == set(bench.elements(job, 2))
    for status in polled.values():
        assert status.state is State.UNKNOWN
        assert status.native
        assert status.native in odd
    bench.scheduler.cancel([job])


# In the place of a submit command: submits, and says so in its own way.
SHIM = """#!/bin/sh
case "$0 $*" in *"$MARK"* | *condor_submit_dag*) ;; *) exec "$REAL" "$@" ;; esac
said=$("$REAL" "$@") || exit
case $ODD in
banner) printf 'Your account expires soon\\n%s\\nNote: 1200 hours are left\\n' "$said" ;;
twice) printf '%s\\n' "$said" "$(echo "$said" | sed 's/[0-9][0-9]*/1222/g; s/^ƒ/ƒ7/')" ;;
failed) printf '%s\\n' "$said"; echo "warning: no mail was sent" >&2; exit 1 ;;
killed) kill -9 $$ ;;
esac
"""


@pytest.mark.can("commands", "arrays")
@pytest.mark.parametrize("odd", ["banner", "twice", "failed", "killed", "silent"])
def test_an_odd_answer_to_a_submission_proves_nothing(
    bench: Bench, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = bench.cluster.dialect.commands[0]
    mine = f"{bench.folder.parent.name}-odd"
    folder = bench.cluster.home / "shim"
    folder.mkdir()
    (folder / command).write_text(SHIM)
    (folder / command).chmod(0o700)
    with monkeypatch.context() as patch:
        facts = {"REAL": shutil.which(command), "MARK": mine, "ODD": odd}
        for name, value in {**facts, "PATH": f"{folder}:{os.environ['PATH']}"}.items():
            patch.setenv(name, str(value))
        try:
            job = bench.submit(f"{WAIT}wait_for go", token=mine, array=3)
        except SubmitUnclear:
            job = ""
    assert bool(job) is (odd == "banner")
    until(lambda: bench.scheduler.find([mine]))
    found = bench.scheduler.find([mine])
    assert job in ("", found[mine])
    until(lambda: bench.states(found[mine]).keys() == {*bench.elements(found[mine], 3)})
    bench.scheduler.cancel([found[mine]])
    bench.gone(found[mine])


# --- which scheduler ------------------------------------------------------------------------------


def test_two_adapters_on_one_scheduler_name_it_alike(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the shell: what they name is where the job is."""
    named = bench.scheduler.instance()
    job = bench.submit(f"{WAIT}wait_for go")
    for name, value in {"LC_ALL": "C", "LANG": "C", "FLUX_F58_FORCE_ASCII": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    other = bench.cluster.dialect.adapter(bench.cluster.spool, run_command)
    assert other.instance() == named
    assert named.partition(":")[2].strip()
    assert other.poll([job]).keys() == {bench.scheduler.element(job, None)}
    other.cancel([job])
    bench.gone(job)


@pytest.mark.can("hides")
def test_nothing_that_users_set_for_their_eyes_hides_a_job(bench: Bench) -> None:
    mine = f"{bench.folder.parent.name}-seen"
    job = bench.submit(f"{WAIT}wait_for go", token=mine, array=2)
    held = bench.submit("true", token=f"{mine} held", held=True)
    elements = {held, *bench.elements(job, 2)}
    hides = bench.cluster.dialect.hides
    assert hides is not None
    for hidden in hides():
        with hidden:
            assert bench.states(job, held).keys() == elements
            assert bench.scheduler.find([mine, f"{mine} held"]).keys() == {mine, f"{mine} held"}
    bench.scheduler.cancel([job, held])
    bench.gone(job, held)
