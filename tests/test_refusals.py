"""Refusals that pass by themselves, told from those that do not, in each scheduler's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.schedulers.base import CommandScheduler, Done, run_command
from hpcpipe.schedulers.htcondor import HTCondor
from hpcpipe.schedulers.pbs import PBS
from hpcpipe.schedulers.sge import Sge
from hpcpipe.schedulers.slurm import Slurm
from hpcpipe.schedulers.torque import Torque

SLURM = "sbatch: error: Batch job submission failed: "
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
GE = "Unable to run job: job rejected: "  # as 8.1.9 was seen to say it
TORQUE = "qsub: submit error (Maximum number of jobs already in queue for user MSG=total number of"

# Those of PBS are in its src/lib/Liblog/pbs_messages.c.
PASSING = [
    (Slurm, f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{SLURM}{POLICY}"),
    (Slurm, f"sbatch: error: AssocMaxSubmitJobLimit\n{SLURM}{POLICY}"),
    (Slurm, f"sbatch: error: AssocGrpSubmitJobsLimit\n{SLURM}{POLICY}"),
    (Slurm, f"{SLURM}Resource temporarily unavailable"),
    (Sge, f"{GE}only 2 jobs are allowed per user (current job count: 2)\nExiting."),
    (Sge, f"{GE}only 1 jobs are allowed per cluster\nExiting."),
    (PBS, "qsub: Maximum number of jobs already in queue workq"),
    (PBS, "qsub: Maximum number of jobs in 'Q' state for user ada already in complex"),
    (PBS, "qsub: would exceed queue short's per-user limit"),
    (PBS, "qsub: would exceed per-user limit on resource ncpus in complex"),
    (Torque, f"{TORQUE} current user's jobs exceeds the queue limit: user ada@host, queue short)"),
    (HTCondor, "ERROR: Failed to create proc\nNumber of submitted jobs would exceed "
               "MAX_JOBS_PER_OWNER"),
]  # fmt: skip
LASTING = [
    (Slurm, f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{SLURM}{POLICY}"),
    (Slurm, f"{SLURM}Invalid account or account/partition combination specified"),
    (Sge, f'{GE}the requested parallel environment "none" does not exist\nExiting.'),
    (PBS, "qsub: Job violates queue and/or server resource limits"),
    (PBS, "qsub: Array job exceeds server or queue size limit"),
    (Torque, "qsub: submit error (Unknown queue MSG=cannot locate queue)"),
    (HTCondor, "ERROR: No such directory: /nonexistent"),
]


@pytest.mark.parametrize(
    ("adapter", "words", "passing"),
    [(*row, True) for row in PASSING] + [(*row, False) for row in LASTING],
)
def test_a_limit_of_jobs_may_pass_and_other_refusals_do_not(
    adapter: type[CommandScheduler], words: str, passing: bool
) -> None:
    with pytest.raises(SchedulerError) as refused:
        adapter().refuse(Done(("submit",), 1, "", words))
    assert type(refused.value) is SchedulerError
    assert (refused.value.passing, str(refused.value)) == (passing, words)


def test_a_command_that_waits_for_a_limit_by_itself_is_quoted_when_it_takes_too_long(
    tmp_path: Path,
) -> None:
    """As LSF's bsub does."""
    bsub = tmp_path / "bsub"
    said = "User <ada>: Pending job threshold reached. Retrying in 60 seconds..."
    bsub.write_text(f"#!/bin/sh\necho '{said}' >&2\nexec sleep 60\n")
    bsub.chmod(0o700)
    with pytest.raises(SchedulerUnavailable) as late:
        run_command([str(bsub)], timeout=1)
    assert str(late.value) == f"{said}\n({bsub} did not answer in 1 s)"
