"""Which scheduler ids belong to: named from the files and variables of its own commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.schedulers.base import CommandScheduler, Done, program, without
from hpcpipe.schedulers.drmaa import Drmaa
from hpcpipe.schedulers.flux import Flux
from hpcpipe.schedulers.htcondor import HTCondor
from hpcpipe.schedulers.ipyparallel import Ipyparallel
from hpcpipe.schedulers.local import Local
from hpcpipe.schedulers.lsf import LSF
from hpcpipe.schedulers.oar import Oar
from hpcpipe.schedulers.pbs import PBS
from hpcpipe.schedulers.sge import Sge
from hpcpipe.schedulers.slurm import Slurm
from hpcpipe.schedulers.torque import Torque


def silent(argv: Sequence[str], cwd: Path | None) -> Done:
    raise AssertionError(f"asked in {cwd}: {' '.join(argv)}")


def saying(text: str, status: int = 0) -> Callable[[Sequence[str], Path | None], Done]:
    return lambda argv, _: Done(tuple(argv), status, text)


def test_slurm_is_named_by_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "slurm.conf"
    file.write_text("# ClusterName=old\nSlurmctldHost=a\nclustername = Alps  # here\n")
    monkeypatch.setenv("SLURM_CONF", str(file))
    assert Slurm(silent).instance() == "slurm:alps"
    assert Slurm(silent, cluster="Fidis").instance() == "slurm:fidis"
    file.unlink()
    assert Slurm(saying("ClusterName             = alps\n")).instance() == "slurm:alps"
    with pytest.raises(SchedulerUnavailable, match="is this a login node"):
        Slurm(saying("")).instance()


def test_grid_engine_is_its_cell_on_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = tmp_path / "prod" / "common"
    common.mkdir(parents=True)
    monkeypatch.setenv("SGE_ROOT", str(tmp_path))
    monkeypatch.setenv("SGE_CELL", "prod")
    with pytest.raises(SchedulerUnavailable, match="act_qmaster: No such file"):
        Sge(silent).instance()
    (common / "act_qmaster").write_text("Master.lab\n")
    assert Sge(silent).instance() == "sge:prod@master.lab"
    assert Drmaa(run=silent).instance() == "sge:prod@master.lab"  # the ids are the same


def test_pbs_and_torque_are_named_by_their_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PBS_SERVER", "PBS_PRIMARY", "PBS_DEFAULT"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "pbs.conf"
    file.write_text("PBS_HOME=/var/spool/pbs\nPBS_SERVER=Head.lab\n")
    monkeypatch.setenv("PBS_CONF_FILE", str(file))
    assert PBS(silent).instance() == "pbs:head.lab"
    monkeypatch.setenv("PBS_CONF_FILE", "/nowhere")
    assert PBS(saying("Server: head.lab\n    server_state = Active\n")).instance() == "pbs:head.lab"
    (tmp_path / "server_name").write_text("head\n")
    monkeypatch.setenv("PBS_SERVER_HOME", str(tmp_path))
    assert Torque(silent).instance() == "torque:head"


FLUX = "hostlist    a[1-4]\ninstance-level    {}\njobid    {}\nrundir    /tmp/flux-x1Yz\n"


@pytest.mark.parametrize(
    ("adapter", "answer", "named"),
    [
        (LSF, "IBM Spectrum LSF 10.1\nMy cluster name is lab\nMy master name is m\n", "lsf:lab"),
        (Oar, '{"1" : {\n      "network_address" : "node1.Lab"\n}}\n', "oar:node1.lab"),
        (Flux, FLUX.format(0, "-"), "flux:a/flux-x1Yz"),
        (Flux, FLUX.format(1, "ƒ3peFj8b"), "flux:a/f3peFj8b"),
        (Flux, FLUX.format(1, "f3peFj8b"), "flux:a/f3peFj8b"),
    ],
)  # fmt: skip
def test_others_say_it_themselves(
    adapter: Callable[..., CommandScheduler], answer: str, named: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))
    scheduler = adapter(saying(answer))
    assert scheduler.instance() == named
    with pytest.raises(SchedulerUnavailable):
        adapter(saying("", 1)).instance()


@pytest.mark.parametrize(
    ("defined", "undefined", "named"),
    [
        ("ap.Lab\n", ("SCHEDD_HOST", "SCHEDD_NAME"), "ap.lab"),
        ("q\nap.lab\n", ("SCHEDD_HOST",), "q@ap.lab"),
        ("other.lab\nap.lab\n", ("SCHEDD_NAME",), "other.lab"),
    ],
)
def test_a_schedd_is_named_by_the_configuration(
    defined: str, undefined: Sequence[str], named: str
) -> None:
    words = "".join(f"Not defined: {name}\n" for name in undefined)
    scheduler = HTCondor(lambda argv, _: Done(tuple(argv), 1, defined, words))
    assert scheduler.instance() == f"htcondor:{named}"


def test_a_controller_is_named_by_its_connection_file(tmp_path: Path) -> None:
    file = tmp_path / "ipcontroller-client.json"
    file.write_text(json.dumps({"key": "secret-1", "interface": "tcp://127.0.0.1"}))
    one = Ipyparallel(connection_file=str(file)).instance()
    file.write_text(json.dumps({"key": "secret-1", "ssh": "me@lab"}))
    assert Ipyparallel(connection_file=str(file)).instance() == one
    file.write_text(json.dumps({"key": "secret-2"}))  # started anew: of the old tasks it knows none
    assert Ipyparallel(connection_file=str(file)).instance() == one
    assert "secret" not in one
    file.unlink()
    with pytest.raises(SchedulerUnavailable, match="ipcluster start"):
        Ipyparallel(connection_file=str(file)).instance()


def test_a_spool_is_this_hosts(tmp_path: Path) -> None:
    assert Local(tmp_path / "a").instance() != Local(tmp_path / "b").instance()
    assert Local(tmp_path / "a").instance() == Local(str(tmp_path / "a")).instance()


def test_what_users_set_is_kept_from_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without("HPCPIPE_NOTHING_.*") == ()
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    words = Slurm().poll_command(["7"])
    assert words[:3] == ("env", "-u", "SQUEUE_PARTITION")
    assert program(words) == "squeue"
    assert {"--all", "SLURM_TIME_FORMAT=standard"} <= {*words}


@pytest.mark.parametrize(
    ("options", "hides"),
    [("-s p -u root", ""), ("-q gpu.q", "-q"), ("-g c", "-g c"), ("-g d", ""), ("-j 1", "-j")],
)
def test_options_that_hide_jobs_of_grid_engine_are_named(
    options: str, hides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = tmp_path / "default" / "common"
    common.mkdir(parents=True)
    (common / "sge_qstat").write_text(f"# site's\n{options}\n")
    monkeypatch.setenv("SGE_ROOT", str(tmp_path))
    monkeypatch.delenv("SGE_CELL", raising=False)
    none = "<job_info><queue_info></queue_info><job_info></job_info></job_info>\n"
    if not hides:
        assert Sge(saying(none)).poll(["7"]) == {}
        return
    with pytest.raises(SchedulerUnavailable, match=f"sge_qstat says {hides}, which hides jobs"):
        Sge(saying(none)).find(["t"])
