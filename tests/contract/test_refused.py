"""Requests that no scheduler can serve: the cause is named, and what is suggested ends well."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from contract.dialects import SLURM
from contract.dialects.sge import SGE
from contract.harness import Cluster, tried

FLOW = """
    from hpcpipe import Workflow, each, task

    @task(cpus=1, memory="50M", time="5m")
    def first(n):
        return n

    @task(cpus=1, memory="60M", time="5m")
    def second(n):
        return n

    wf = Workflow("refused", base_dir="runs")
    wf.add(second, n=wf.add(first, n=each([1, 2])))
"""


class Planted(NamedTuple):
    """A fault in a site file, and what is said of it by the name of the scheduler."""

    fault: str
    status: dict[str, int]  # of the submit command
    reason: dict[str, str]
    words: dict[str, str]
    mended: tuple[str, ...] = ("slurm", "sge")  # by a person; else the suggestion alone helps


# Each has a queue of one minute.
PLANTED = {
    "never starts": Planted(
        '[[queues]]\nname = "{minute}"\nmax_time = "1h"\n',
        {"slurm": 0, "sge": 5},
        {"slurm": "can never start", "sge": "refused by the scheduler"},
        {
            "slurm": "PartitionTimeLimit: requests more time than the partition allows",
            "sge": r'Job \d+ \(-l .*h_rt=300.*\) cannot run in queue "minute" because',
        },
    ),
    "bad account": Planted(
        '[defaults]\naccount = "nosuch"\n',
        {"slurm": 5, "sge": 5},
        {"slurm": "refused by the scheduler", "sge": "refused by the scheduler"},
        {"slurm": "Invalid account", "sge": 'the requested project "nosuch" does not exist'},
        mended=(),
    ),
}


@pytest.fixture(params=[one.param for one in (SLURM, SGE)])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Each real scheduler that can be asked for what it will never give."""
    with tried(request.param, tmp_path) as cluster:
        yield cluster


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_the_cause_is_named_and_the_suggested_command_ends_well(
    real: Cluster, planted: Planted
) -> None:
    name, minute = real.dialect.name, "debug" if real.dialect is SLURM else "minute"
    extends = f'extends = "{real.dialect.site}"\n'
    real.write("lab.toml", extends + planted.fault.format(minute=minute))
    real.write("flow.py", FLOW)
    real.hpcpipe("submit", "flow.py", "--site", "lab.toml", status=planted.status[name])
    told = {one["task"]: one for one in real.finish()["failures"]}
    assert told["first/1"]["reason"] == planted.reason[name]
    assert re.search(planted.words[name], told["first/1"]["error"])
    screen = real.hpcpipe("status").stdout
    assert re.search(rf"^why +\d+  {planted.reason[name]}", screen, re.M)
    if name in planted.mended:
        real.write("lab.toml", extends)
    suggested = re.findall(r"^(?:Next:|     ) hpcpipe (.*?)(?:   .*)?$", screen, re.M)
    assert suggested[-1].startswith("retry")
    for words in suggested:
        real.hpcpipe(*shlex.split(words))
    report = real.finish()
    assert report["failures"] == []
    assert report["nodes"]["second"] == {"all": 2, "done": 2}
