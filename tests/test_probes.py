"""A live cluster looked at: the site file written of it, and a site file held against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from contract.harness import Cluster
from fakes import FakeScheduler

from hpcpipe.doctor import diagnose
from hpcpipe.errors import SchedulerError, SchedulerUnavailable, UsageError
from hpcpipe.probes import find_probe, make_probe
from hpcpipe.probes.base import Finding
from hpcpipe.schedulers.base import Done, Run
from hpcpipe.site import Defaults, Limits, Queue, Site
from hpcpipe.site.init import save_new, write_site
from hpcpipe.site.load import Loaded, load_site

LIVE = Path(__file__).parent / "golden" / "outputs" / "slurm" / "live"
ANSWERS = {
    ("scontrol", "config"): "config",
    ("scontrol", "partition"): "partition",
    ("sinfo", "%P|%c|%m|%G|%f"): "nodes",
    ("sacctmgr", "format=DefaultAccount"): "user",
    ("sacctmgr", "format=Account,MaxSubmitJobs"): "assoc",
}


def answering(change: Callable[[str], str] = lambda text: text) -> Run:
    """Answer as a real Slurm 22.05.8 did, but for what a test changes."""

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        name = ANSWERS[argv[0], argv[-1]]
        return Done(tuple(argv), 0, change((LIVE / f"{name}.txt").read_text()))

    return run


def test_what_a_slurm_says_of_itself_becomes_a_commented_site_file_that_loads(
    golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    found = make_probe("slurm").look(answering())
    text = write_site(found, "login1", date(2026, 11, 24))
    golden("outputs/slurm/live/site.toml", text)
    (tmp_path / "site.toml").write_text(text)
    site = load_site(str(tmp_path / "site.toml")).site
    shipped = load_site("test-slurm").site

    def limits(site: Site) -> list[tuple[str, bool, object, object, object]]:
        return [(q.name, q.default, q.max_time, q.max_memory, q.max_cpus) for q in site.queues]

    assert limits(site) == limits(shipped)
    assert site.limits.array_size == shipped.limits.array_size
    assert (site.scheduler, site.defaults.account) == ("slurm", "lab")
    short, _, gpu, _ = site.queues
    assert (short.max_gpus, short.min_gpus, gpu.min_gpus) == (2, None, 1)
    assert short.constraints == {"big": "big", "gpulike": "gpulike", "small": "small"}


def test_models_of_gpus_whole_machines_and_preemption_are_seen() -> None:
    def change(text: str) -> str:
        text = text.replace("|gpu:2|", "|gpu:a100:4(S:0-1),gpu:v100:2,nvme:1|")
        text = text.replace("OverSubscribe=NO", "OverSubscribe=EXCLUSIVE")
        return text.replace("PreemptMode=OFF", "PreemptMode=REQUEUE").replace(
            "MinNodes=0", "MinNodes=2"
        )

    found = make_probe("slurm").look(answering(change))
    gpu = next(queue for queue in found.settings["queues"] if queue["name"] == "gpu")
    assert gpu["max_gpus"] == 6
    assert gpu["gpu_models"] == {"a100": "a100", "v100": "v100"}
    assert (gpu["exclusive"], gpu["preemptible"], gpu["min_nodes"]) == (True, True, 2)


def test_partitions_that_are_closed_to_this_user_are_left_out() -> None:
    def change(text: str) -> str:
        return text.replace("PartitionName=long AllowGroups=ALL AllowAccounts=ALL",
                            "PartitionName=long AllowGroups=ALL AllowAccounts=physics")  # fmt: skip

    found = make_probe("slurm").look(answering(change))
    assert [queue["name"] for queue in found.settings["queues"]] == ["short", "gpu", "debug"]


def test_a_cluster_that_does_not_answer_is_no_site() -> None:
    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), 1, "", "slurm_load_ctl_conf error: Unable to contact slurm")

    with pytest.raises(SchedulerUnavailable, match=r"^slurm_load_ctl_conf error"):
        make_probe("slurm").look(run)


def test_the_scheduler_whose_commands_are_here_is_looked_at() -> None:
    assert find_probe(lambda tool: "/bin/sbatch" if tool == "sbatch" else None).name == "slurm"
    assert find_probe(lambda _: None).name == "local"


def test_a_site_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "site.toml"
    save_new(file, "one")
    with pytest.raises(UsageError, match="is there already, and is not overwritten"):
        save_new(file, "two")
    assert file.read_text() == "one"


# Held against the cluster

SLURM = Site(scheduler="slurm", limits=Limits(array_size=1001))


def findings(site: Site, change: Callable[[str], str] = lambda text: text) -> Iterator[Finding]:
    loaded = Loaded(site, Path("site.toml"), (), "why")
    return diagnose(loaded, trial=False, run=answering(change))


@pytest.mark.parametrize(
    ("change", "about", "verdict"),
    [
        (("", ""), "correspond_after_task_cnt", "warning"),
        (("bf_continue", "bf_continue,correspond_after_task_cnt=500"),
         "correspond_after_task_cnt", "ok"),
        (("", ""), "MinJobAge", "ok"),
        (("= 300 sec", "= 5 sec"), "MinJobAge", "warning"),
        (("", ""), "kill_invalid_depend", "ok"),
        (("", ""), "accounting", "ok"),
        (("accounting_storage/slurmdbd", "accounting_storage/none"), "accounting", "warning"),
        (("", ""), "memory limit", "ok"),
        (("OverMemoryKill", "(null)"), "memory limit", "warning"),
        (("", ""), "EnforcePartLimits", "warning"),
        (("22.05.8", "19.05.1"), "Slurm", "warning"),
        (("22.05.8", "24.11.0"), "Slurm", "ok"),
    ],
)  # fmt: skip
def test_each_setting_of_slurms_that_matters_is_judged(
    change: tuple[str, str], about: str, verdict: str
) -> None:
    found = [
        one for one in findings(SLURM, lambda text: text.replace(*change)) if one.about == about
    ]
    assert [one.verdict for one in found] == [verdict]
    assert bool(found[0].do) is (verdict != "ok")


@pytest.mark.parametrize(
    ("site", "about", "said", "do"),
    [
        (
            replace(SLURM, limits=Limits(array_size=5000)),
            "limits.array_size",
            "5000, but the cluster takes 1001 (MaxArraySize; the last index stays below it)",
            "set limits.array_size = 1001",
        ),
        (
            replace(SLURM, queues=(Queue(name="shrot"),)),
            "queue shrot",
            "no open queue 'shrot' on the cluster",
            "take it out of the file; did you mean short?",
        ),
        (
            replace(SLURM, queues=(Queue(name="x", spelled="short", max_time=86400),)),
            "queue x",
            "time 1 d > 4 h",
            'set its max_time = "14400s"',
        ),
        (
            replace(SLURM, defaults=Defaults(account="physics")),
            "defaults.account",
            "'physics' is none of yours, which are lab, teach",
            'set defaults.account = "lab"',
        ),
        (replace(SLURM, retires="2020-01-01"), "retires",
         "the cluster is no more since 2020-01-01", "move on"),
    ],
)  # fmt: skip
def test_what_the_file_has_wrong_is_told_with_what_to_do(
    site: Site, about: str, said: str, do: str
) -> None:
    [wrong] = [one for one in findings(site) if one.verdict == "wrong"]
    assert (wrong.about, wrong.said, wrong.do) == (about, said, do)


def test_old_settings_and_queues_that_are_not_in_the_file_are_told() -> None:
    site = replace(SLURM, as_of="2020-01-01", check="qlimits", queues=(Queue(name="short"),))
    said = {one.about: (one.verdict, one.do) for one in findings(site)}
    assert said["as_of"] == ("warning", "check it with qlimits, and set as_of")
    assert said["queue short"] == said["queue long"] == ("ok", "")
    said = {one.about: (one.verdict, one.do) for one in findings(SLURM)}
    assert said["queues"] == ("warning", "hpcpipe site init writes them")


# On live schedulers


@pytest.mark.can("probed")
def test_a_site_file_is_written_and_found_right_by_a_tiny_array(cluster: Cluster) -> None:
    where = cluster.home / "new.toml"
    if cluster.dialect.name == "local":
        where.write_text('extends = "local"\n[software.sh]\nsetup = "true"\n')
    else:
        cluster.hpcpipe("site", "init", where)
        refused = cluster.hpcpipe("site", "init", where, status=2)
        assert "is not overwritten" in refused.stderr
        with where.open("a") as file:
            file.write('[software.sh]\nsetup = "true"\n')
    told = json.loads(cluster.hpcpipe("site", "doctor", "--json", "--site", where).stdout)
    verdicts = {one["about"]: one["verdict"] for one in told}
    proved = ("submission", "run", "nodes", "Python", "home folder", "software sh")
    assert {about: verdicts[about] for about in proved} == dict.fromkeys(proved, "ok")
    assert "wrong" not in verdicts.values()
    assert not [*cluster.home.glob("hpcpipe-doctor-*")]


@pytest.mark.can("probed")
def test_what_only_a_node_can_tell_is_told_too(cluster: Cluster) -> None:
    where = cluster.home / "bad.toml"
    base = cluster.dialect.site
    where.write_text(
        f'extends = "{base}"\nnodes.home = false\n'
        "[software.fsl]\nsetup = 'echo no such module >&2; false'\n"
    )
    done = cluster.hpcpipe("site", "doctor", "--site", where, status=3)
    lines = done.stdout.splitlines()
    assert "wrong    software fsl: its setup fails: no such module" in lines
    assert "warning  home folder: nodes can write to it" in lines


def test_a_refused_trial_is_one_line_and_leaves_nothing(
    scheduler: FakeScheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(step: str) -> None:
        if step == "submit":
            raise SchedulerError("qsub: no such queue")

    scheduler.hook = refuse
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    loaded = Loaded(Site(), Path("site.toml"), (), "why")
    *_, last = diagnose(loaded)
    assert (last.about, last.verdict, last.said) == ("run", "wrong", "qsub: no such queue")
    assert not [*tmp_path.glob("hpcpipe-doctor-*")]
