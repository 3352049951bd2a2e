"""LSF's adapter against answers written from its documentation: there are no samples of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import ends_of

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import After, Reason, State
from hpcpipe.schedulers.base import Done, launch
from hpcpipe.schedulers.lsf import LSF

ROW = {
    "JOBID": "7", "JOBINDEX": "0", "STAT": "PEND", "EXIT_CODE": "", "EXIT_REASON": "-",
    "RUN_TIME": "12 second(s)", "MAX_MEM": "1.5 Gbytes", "EXEC_HOST": "4*node7", "PEND_REASON": "-",
}  # fmt: skip


def lsf(*answers: str | tuple[int, str, str]) -> tuple[LSF, list[Sequence[str]]]:
    """Make an adapter whose commands get these answers, in turn; and note the commands."""
    left, ran = list(answers), []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        ran.append(argv)
        answer = left.pop(0)
        return Done(tuple(argv), *((0, answer, "") if isinstance(answer, str) else answer))

    return LSF(run), ran


def answer(*rows: dict[str, str]) -> str:
    return json.dumps(
        {"COMMAND": "bjobs", "JOBS": len(rows), "RECORDS": [ROW | row for row in rows]}
    )


def test_what_is_live_is_told_from_what_never_can_run() -> None:
    never = "Dependency condition invalid or never satisfied;"
    rows = (
        {"JOBINDEX": "1"},
        {"JOBINDEX": "2", "STAT": "RUN"},
        {"JOBINDEX": "3", "STAT": "DONE"},
        {"JOBID": "8", "STAT": "PSUSP"},
        {"JOBID": "9", "PEND_REASON": never},
        {"JOBID": "10", "STAT": "UNKWN"},
    )
    statuses = lsf(answer(*rows))[0].poll(["7"])
    assert {job: status.state for job, status in statuses.items()} == {
        "7[1]": State.QUEUED,
        "7[2]": State.RUNNING,
        "8": State.HELD,
        "9": State.BLOCKED,
        "10": State.UNKNOWN,
    }
    assert statuses["9"].why == never.rstrip(";")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"STAT": "DONE"}, (None, 0, None)),
        ({"STAT": "EXIT", "EXIT_CODE": "3"}, (Reason.EXIT, 3, None)),
        ({"STAT": "EXIT", "EXIT_CODE": "139"}, (Reason.SIGNAL, None, 11)),
        ({"STAT": "EXIT", "EXIT_CODE": "255"}, (Reason.EXIT, 255, None)),
        ({"STAT": "EXIT", "EXIT_CODE": "140", "EXIT_REASON": "TERM_RUNLIMIT: job killed after"},
         (Reason.TIME, None, 12)),
        ({"STAT": "EXIT", "EXIT_CODE": "137", "EXIT_REASON": "TERM_MEMLIMIT: job killed after"},
         (Reason.MEMORY, None, 9)),
        ({"STAT": "EXIT", "EXIT_CODE": "130", "EXIT_REASON": "TERM_OWNER: job killed by owner"},
         (Reason.CANCELLED, None, 2)),
        ({"STAT": "EXIT", "EXIT_REASON": "TERM_ORPHAN_SYSTEM: The orphan job was"},
         (Reason.UPSTREAM, 0, None)),
    ],
)  # fmt: skip
def test_each_end_is_told_apart(
    row: dict[str, str], told: tuple[Reason | None, int | None, int | None]
) -> None:
    end = ends_of(lsf(answer(row))[0], "7")["7"]
    assert (end.reason, end.exit_code, end.signal) == told
    assert end[4:7] == (1536, 12.0, "node7")


def test_a_job_that_is_not_found_is_absent() -> None:
    missing = json.dumps({"RECORDS": [{"JOBID": "9", "ERROR": "Job <9> is not found"}]})
    for said in (
        (255, missing, ""),
        (255, "", "Job <9> is not found"),
        "",
        (0, "", "No job found"),
    ):
        assert lsf(said)[0].poll(["9"]) == {}
    with pytest.raises(SchedulerUnavailable):
        lsf((255, "", "LSF is down. Please wait ..."))[0].poll(["9"])


def test_elements_pair_by_name_and_directives_become_options(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    script = tmp_path / "batches" / "b.sh"
    script.write_text(
        '#!/bin/bash -l\n#BSUB -J smooth-1f.wf[1-3]\n#BSUB -R "span[hosts=1]"\nexit\n'
    )
    said = "Job <{}> is submitted to queue <normal>.\n"
    adapter, ran = lsf(
        said.format(7), said.format(8), answer({"JOB_NAME": "old.wf[1]"}), said.format(9)
    )
    assert adapter.submit(script, token="t", held=True) == "7"
    adapter.submit(script, [After("7", "each"), After("5", element=2), After("6")], token="t")
    adapter.submit(script, [After("4", "each"), After("3", well=False)], token="t")
    given = ("-J", "smooth-1f.wf[1-3]", "-R", "span[hosts=1]", "-Jd", "hpcpipe:t")
    command = (
        launch(script, ("/bin/bash", "-l")),
    )  # bsub would forget the quotes of several words
    assert ran[0] == ("bsub", *given, "-H", *command)
    pairs = 'done("smooth-1f.wf[*]") && done(5[2]) && done(6)'
    assert ran[1] == ("bsub", *given, "-w", pairs, "-ti", *command)
    assert ran[2][:2] == ("bjobs", "-a")  # the name of a job of another submission
    assert ran[3] == ("bsub", *given, "-w", 'done("old.wf[*]") && ended(3)', "-ti", *command)


def test_a_refusal_and_no_id_are_errors(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(SchedulerError, match="nowhere: No such queue"):
        lsf((255, "", "nowhere: No such queue. Job not submitted."))[0].submit(script, token="t")
    with pytest.raises(SchedulerError, match="gave no job id"):
        lsf("Thank you for your job.")[0].submit(script, token="t")
