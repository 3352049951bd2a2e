"""What adapters make of answers that are cut short, garbled, or have somebody else's lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.pbs import spelled

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import JobEnd
from hpcpipe.schedulers.base import CommandScheduler, Done
from hpcpipe.schedulers.flux import Flux
from hpcpipe.schedulers.htcondor import HTCondor
from hpcpipe.schedulers.lsf import LSF
from hpcpipe.schedulers.oar import Oar
from hpcpipe.schedulers.pbs import PBS
from hpcpipe.schedulers.sge import Sge
from hpcpipe.schedulers.slurm import Slurm
from hpcpipe.schedulers.torque import Torque

Adapter = Callable[..., CommandScheduler]
OUTPUTS = Path(__file__).parent / "golden" / "outputs"
LSF_ROW = {
    "JOBID": "7", "JOBINDEX": "1", "STAT": "EXIT", "EXIT_CODE": "3", "EXIT_REASON": "-",
    "RUN_TIME": "12 second(s)", "MAX_MEM": "1.5 Gbytes", "EXEC_HOST": "4*node7", "PEND_REASON": "-",
}  # fmt: skip
SQUEUE = (
    "7_[1-3,9%2]|PENDING|Priority|N/A\n8|PENDING|BeginTime|2037-01-01T00:00:00\n"
    "9_4|RUNNING|None|2026-11-28T10:00:00\n"
)
ANSWERS: Sequence[tuple[Adapter, str, str, str]] = [  # adapter, verb, a job, an answer or its file
    (Slurm, "poll", "7", SQUEUE),
    (Slurm, "account", "62", "slurm/sacct.txt"),
    (Sge, "poll", "104", "sge/qstat-mixed.xml"),
    (Sge, "account", "128", "sge/qacct.txt"),
    (PBS, "poll", "4[].pbshost", "pbs/qstat_tf.json"),
    (PBS, "account", "16.pbshost", "pbs/qstat_f_mixed.txt"),
    (PBS, "account", "37.pbshost", "pbs/qstat_xf_ends.json"),
    (Torque, "account", "2[].pbshost", "torque/qstat_ends.xml"),
    (LSF, "account", "7", json.dumps({"RECORDS": [LSF_ROW, {**LSF_ROW, "JOBINDEX": "2"}]})),
    (Oar, "account", "2521-2522", "oar/anew.json"),
    (Flux, "account", "ƒPmyT5XM", "flux/flux_jobs_json.json"),
    (HTCondor, "poll", "2460", "htcondor/condor_q_dag.json"),
    (HTCondor, "account", "2460", "htcondor/condor_history_dag.json"),
]
NAMED = pytest.mark.parametrize(
    ("adapter", "verb", "job", "answer"),
    ANSWERS,
    ids=[f"{adapter.__name__}-{job}-{verb}" for adapter, verb, job, _ in ANSWERS],
)
FEW = settings(max_examples=25)  # of answers that are long


def read(answer: str) -> str:
    """Read a sample, where that is what an answer names; PBS is asked for text."""
    if not re.fullmatch(r"[\w/-]+\.\w+", answer):
        return answer
    text = (OUTPUTS / answer).read_text()
    return spelled(json.loads(text)["Jobs"]) if re.match(r"pbs/.*\.json", answer) else text


def ask(adapter: Adapter, verb: str, job: str, text: str) -> dict[str, object]:
    """Ask, and give the answer; nothing where it is one that cannot be read."""
    scheduler = adapter(lambda argv, _: Done(tuple(argv), 0, text))
    try:
        return dict(scheduler.poll([job]) if verb == "poll" else scheduler.account([job], 0))
    except SchedulerUnavailable:
        return {}


def well(said: object) -> bool:
    return isinstance(said, JobEnd) and said.reason is None


@NAMED
@FEW
@given(data=st.data())
def test_an_answer_cut_short_names_nothing_else(
    adapter: Adapter, verb: str, job: str, answer: str, data: st.DataObject
) -> None:
    """No other element, and no success that was none."""
    text = read(answer)
    whole = ask(adapter, verb, job, text)
    assert whole
    left = ask(adapter, verb, job, text[: data.draw(st.integers(0, len(text)))])
    assert left.keys() <= whole.keys()
    assert all(well(whole[element]) for element, said in left.items() if well(said))


@NAMED
@FEW
@given(data=st.data())
def test_a_garbled_answer_is_no_bug_of_ours(
    adapter: Adapter, verb: str, job: str, answer: str, data: st.DataObject
) -> None:
    text = read(answer)
    at, end = (data.draw(st.integers(0, len(text))) for _ in range(2))
    junk = data.draw(st.text("ab|<>{}[]\"',:_-= \n\tü\ufffd\x00\x1b", max_size=9))
    ask(adapter, verb, job, text[:at] + junk + text[max(at, min(end, at + 30)) :])


IDS: Sequence[tuple[Adapter, tuple[str, ...], str, str]] = [  # adapter, command, answer, id
    (Slurm, ("sbatch",), "4711;alps\n", "4711"),
    (Sge, ("qsub",), "104.1-10:1\n", "104"),
    (PBS, ("qsub",), "1234[].pbshost\n", "1234[].pbshost"),
    (Torque, ("qsub",), "1234.pbshost\n", "1234.pbshost"),
    (LSF, ("bsub",), "Job <1234> is submitted to queue <normal>.\n", "1234"),
    (Oar, ("oarsub", "--array", "2"), "OAR_JOB_ID=18\nOAR_JOB_ID=19\nOAR_ARRAY_ID=18\n", "18-19"),
    (Flux, ("flux", "submit"), "ƒ4J24Twu\n", "f4J24Twu"),
    (HTCondor, ("condor_submit_dag",), (OUTPUTS / "htcondor/condor_submit_dag.txt").read_text(),
     "19"),
]  # fmt: skip
SUBMITTED = pytest.mark.parametrize(
    ("adapter", "argv", "text", "job"), IDS, ids=[one[0].__name__ for one in IDS]
)


@SUBMITTED
@pytest.mark.parametrize("around", ["{}", "Your account expires soon\n{}", "{}1200 hours left\n"])
def test_the_id_is_found_wherever_it_stands(
    adapter: Adapter, argv: tuple[str, ...], text: str, job: str, around: str
) -> None:
    assert adapter().read_submit(Done(argv, 0, around.format(text))) == job
    assert adapter().read_submit(Done(argv, 0, around.format(text).replace("\n", "\r\n"))) == job


@SUBMITTED
@given(cut=st.integers(0, 400))
def test_half_an_answer_is_no_other_id(
    adapter: Adapter, argv: tuple[str, ...], text: str, job: str, cut: int
) -> None:
    with suppress(SubmitUnclear):
        assert adapter().read_submit(Done(argv, 0, text[:cut])) == job


@SUBMITTED
@pytest.mark.parametrize(
    ("status", "told"), [(1, "{}"), (-9, "{}"), (-9, ""), (0, ""), (1, ""), (0, "{}{other}")]
)
def test_what_proves_neither_is_unclear(
    adapter: Adapter, argv: tuple[str, ...], text: str, job: str, status: int, told: str
) -> None:
    del job
    other = "".join("2" if one.isdecimal() else one for one in text)
    with pytest.raises(SubmitUnclear):
        adapter().read_submit(Done(argv, status, told.format(text, other=other)))


@SUBMITTED
def test_words_without_an_id_are_a_refusal(
    adapter: Adapter, argv: tuple[str, ...], text: str, job: str
) -> None:
    del text, job
    with pytest.raises(SchedulerError, match=r"^no such queue") as refused:
        adapter().read_submit(Done(argv, 1, "", "no such queue\n"))
    assert not isinstance(refused.value, SchedulerUnavailable)
