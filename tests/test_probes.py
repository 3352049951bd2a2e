"""A live cluster looked at: the site file written of it, and a site file held against it."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from contract.harness import Cluster
from fakes import FakeScheduler

from hpcpipe.errors import ConfigError, SchedulerError, SchedulerUnavailable, UsageError
from hpcpipe.probes import find_probe, look, make_probe
from hpcpipe.probes.doctor import diagnose
from hpcpipe.probes.write_site import save_new, write_site
from hpcpipe.schedulers.base import Done, Run
from hpcpipe.schedulers.lsf.options import Options as LSF
from hpcpipe.schedulers.oar.options import Options as Oar
from hpcpipe.schedulers.probe import Finding
from hpcpipe.schedulers.sge.options import Options as Sge
from hpcpipe.schedulers.slurm.options import Options as Slurm
from hpcpipe.site import Defaults, Limits, Queue, Site
from hpcpipe.site.file import Machine
from hpcpipe.site.load import Loaded, load_site

OUTPUTS = Path(__file__).parent / "golden" / "outputs"
# By scheduler, how the commands of its probe begin, and where a real one's answer is; LSF's are
# written from its documentation.
ANSWERS = {
    "slurm": {
        "scontrol show config": "config",
        "scontrol -o show partition": "partition",
        "sinfo -h -N -o %P|%c|%m|%G|%f": "nodes",
        "sacctmgr -nP show user": "user",
        "sacctmgr -nP show assoc": "assoc",
    },
    "sge": {
        "qconf -sconf": "config",
        "qconf -sc": "resources",
        "qconf -sq *": "queues",
        "qconf -se node1": "host",
        "qconf -sp smp": "smp",
        "qconf -sp mpi": "mpi",
        "qconf -help": "help",
        "qhost -q": "hosts",
        "qselect -U": "mine",
        "qacct -o": "own",
    },
    "oar": {
        "oarnodes -J": "nodes",
        "oarstat -V": "version",
        "oarstat -J --sql job_id = 0": "nothing",
        "oarstat -J --sql job_id IN": "seen",
    },
    "lsf": {
        "lsid": "lsid",
        "bparams -a": "params",
        "badmin showconf mbd": "conf",
        "bqueues -l -u": "queues",
        "bhosts -o": "hosts",
        "lshosts -w": "machines",
        "bmgroup -r -w": "groups",
    },
    "pbs": {"qstat -B": "server", "qstat -Q": "queues", "pbsnodes -a": "nodes"},
    "htcondor": {
        "condor_status -json": "slots",
        "condor_config_val -schedd": "schedd",
        "condor_config_val -address": "host",
        "condor_config_val -negotiator": "groups",
        "condor_version": "version",
    },
}

FOLDERS = {"lsf": "documented"}


def answering(name: str, *changes: tuple[str, str]) -> Run:
    """Answer as a real scheduler did, but for what a test changes."""

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        said = " ".join(argv)
        for begin, file in ANSWERS[name].items():
            if f"{said} ".startswith(f"{begin} "):
                [answer] = (OUTPUTS / name / FOLDERS.get(name, "live")).glob(f"{file}.*")
                text = answer.read_text()
                for change in changes:
                    text = text.replace(*change)
                return Done(tuple(argv), 0, text)
        return Done(tuple(argv), 1, "", f"{said} is not known")

    return run


def written(name: str, folder: Path) -> tuple[str, Loaded]:
    """Write the site file of a live scheduler, and load it."""
    text = write_site(make_probe(name).look(answering(name)), "login1", date(2026, 11, 24))
    (folder / "site.toml").write_text(text)
    return text, load_site(str(folder / "site.toml"))


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name in ANSWERS for command in ANSWERS[name]]
)
def test_an_answer_cut_short_or_garbled_is_no_bug_of_ours(name: str, command: str) -> None:
    chance = random.Random(command)
    for garble in ("", "", "\ufffd|junk <&\n", "Welcome to the cluster\n"):

        def run(argv: Sequence[str], folder: Path | None, garble: str = garble) -> Done:
            done = answering(name)(argv, folder)
            if not " ".join(argv).startswith(command):
                return done
            at = chance.randrange(len(done.stdout) + 1)
            rest = garble + done.stdout[at + 5 :] if garble else ""
            return Done(done.argv, 0, done.stdout[:at] + rest)

        with suppress(SchedulerUnavailable):
            found = look(make_probe(name), run)
            write_site(found, "login1", date(2026, 11, 24))
            [*make_probe(name).check(found, Site(scheduler=name))]


def limits(site: Site) -> list[tuple[str, object, object, object]]:
    return [(q.name, q.max_time, q.max_memory, q.max_cpus) for q in site.queues]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("slurm", 1001),
        ("sge", 1000),
        ("pbs", 1000),
        ("oar", 1000),
        ("lsf", 4000),
        ("htcondor", 1000),
    ],
)
def test_what_a_scheduler_says_of_itself_becomes_a_commented_site_file_that_loads(
    golden: Callable[[str, str], None], tmp_path: Path, name: str, array: int
) -> None:
    text, loaded = written(name, tmp_path)
    golden(f"outputs/{name}/{FOLDERS.get(name, 'live')}/site.toml", text)
    site = loaded.site
    assert (site.scheduler, site.limits.array_size) == (name, array)
    told = [*diagnose(loaded, trial=False, run=answering(name))]
    assert {one.about for one in told if one.verdict == "wrong"} == set()


@pytest.mark.parametrize("name", ["slurm", "sge"])
def test_it_says_what_the_file_written_by_hand_says(tmp_path: Path, name: str) -> None:
    site, shipped = written(name, tmp_path)[1].site, load_site(f"test-{name}").site
    assert sorted(map(str, limits(site))) == sorted(map(str, limits(shipped)))


def test_accounts_gpus_and_features_of_slurm_are_in_the_file(tmp_path: Path) -> None:
    site = written("slurm", tmp_path)[1].site
    short, _, gpu, _ = site.queues
    assert (site.defaults.account, [q.name for q in site.queues if q.default]) == ("lab", ["short"])
    assert (short.max_gpus, short.min_gpus, gpu.min_gpus) == (2, None, 1)
    assert short.constraints == {"big": "big", "gpulike": "gpulike", "small": "small"}


def test_models_of_gpus_whole_machines_and_preemption_are_seen() -> None:
    found = make_probe("slurm").look(
        answering(
            "slurm",
            ("|gpu:2|", "|gpu:a100:4(S:0-1),gpu:v100:2,nvme:1|"),
            ("OverSubscribe=NO", "OverSubscribe=EXCLUSIVE"),
            ("PreemptMode=OFF", "PreemptMode=REQUEUE"),
            ("MinNodes=0", "MinNodes=2"),
        )
    )
    gpu = next(queue for queue in found.settings["queues"] if queue["name"] == "gpu")
    assert gpu["max_gpus"] == 6
    assert gpu["gpu_models"] == {"a100": "a100", "v100": "v100"}
    assert (gpu["exclusive"], gpu["preemptible"], gpu["min_nodes"]) == (True, True, 2)


def test_partitions_that_are_closed_to_this_user_are_left_out() -> None:
    everybody = "PartitionName=long AllowGroups=ALL AllowAccounts="
    closed = (everybody + "ALL", everybody + "physics")
    found = make_probe("slurm").look(answering("slurm", closed))
    assert [queue["name"] for queue in found.settings["queues"]] == ["short", "gpu", "debug"]


def test_queues_of_grid_engine_say_what_they_take_and_from_whom() -> None:
    run = answering(
        "sge",
        ("h_rt                  04:00:00", "h_rt                  3600,[node1=2:0:0]"),
        ("pe_list               smp mpi", "pe_list               NONE,[node1=mpi smp]"),
        ("seq_no                0", "seq_no                10,[node1=20]"),
        ("minute@node1\n", ""),
        ("gpu        INT       <=    YES         YES", "gpu  INT  <=  FORCED  JOB"),
        ("complex_values        NONE", "complex_values        gpu=1,spm_lic=2"),
        ("projects              NONE", "projects              brain heart"),
    )
    settings = make_probe("sge").look(run).settings
    long, short = settings["queues"]
    assert (long["name"], short["name"], short["max_time"]) == ("long", "short", "2h")
    assert (short["options"], short["accounts"]) == (["-l gpu=1"], ["brain", "heart"])
    assert short["max_cpus"] == 4


def test_queues_of_lsf_say_what_they_take(tmp_path: Path) -> None:
    site = written("lsf", tmp_path)[1].site
    assert limits(site) == [
        ("normal", 86400, 400 * 1024, 48),
        ("short", 1800, 5000000 // 1024, 96),
        ("gpu", 259200, 250 * 1024, 32),
    ]
    assert [(q.default_time, q.max_gpus, q.min_gpus) for q in site.queues] == [
        (3600, 0, None),
        (None, 4, None),
        (None, 4, 1),
    ]
    assert ([q.name for q in site.queues if q.default], site.own.memory_per_slot) == (
        ["normal"],
        True,
    )


@pytest.mark.parametrize(
    ("change", "core", "queue"),
    [
        (("", ""), "core", {"name": "default", "default": True, "max_cpus": 4}),
        (('"core"', '"cpu"'), "cpu", {"name": "default", "default": True, "max_cpus": 4}),
        (('"core"', '"kern"'), "resource_id", {"name": "default", "default": True, "max_cpus": 4}),
        (('"state" : "Alive"', '"state" : "Dead"'), "resource_id",
         {"name": "default", "default": True}),
        (('"core" : 4', '"gpu" : 1, "core" : 3'), "core",
         {"name": "default", "default": True, "max_cpus": 3, "max_gpus": 1}),
    ],
)  # fmt: skip
def test_what_a_host_of_oars_has_most_of_is_counted(
    change: tuple[str, str], core: str, queue: dict[str, object]
) -> None:
    settings = make_probe("oar").look(answering("oar", change)).settings
    assert (settings["oar"]["core"], settings["queues"][0]) == (core, queue)


def test_queues_that_oar_does_not_tell_of_are_not_called_wrong() -> None:
    site = replace(OAR, queues=(Queue(name="long"), Queue(name="production")))
    found = {one.about: one.verdict for one in findings(site)}
    assert (found["queue long"], found["queue production"]) == ("ok", "warning")


SHORT = '"walltime":\t"00:01:00"'


@pytest.mark.parametrize(
    ("change", "queues"),
    [
        (('"enabled":\t"True"', '"enabled":\t"False"'), {}),
        (("24684084kb", "1024mb"), {"workq": {"max_memory": "1G"}, "short": {"max_time": "1m"}}),
        ((SHORT, SHORT + ',\n"mem": "2gb", "ncpus": 4'),
         {"workq": {"max_cpus": 8}, "short": {"max_memory": "2G", "max_cpus": 4}}),
        (('"enabled":\t"True"', '"enabled":\t"True", "acl_user_enable":\t"True"'), {}),
        (('"total_jobs":\t0', '"max_queued": "[u:PBS_GENERIC=9]", "max_run": "[u:PBS_GENERIC=4]"'),
         {"workq": {"max_jobs": 9, "max_running": 4}, "short": {"max_jobs": 9}}),
        (('"ncpus":\t8', '"ncpus":\t8, "ngpus":\t2'),
         {"workq": {"max_gpus": 2, "min_gpus": None}, "short": {"max_gpus": 2}}),
        (("default_shared", "force_exclhost"),
         {"workq": {"exclusive": True}, "short": {"exclusive": True}}),
        (('"ntype"', '"queue":\t"workq",\n"ntype"'),
         {"workq": {"max_cpus": 8}, "short": {"max_cpus": None}}),
        (('"resources_default":\t{', '"default_chunk": {"Qlist": "fast"}, "resources_default":\t{'),
         {"workq": {"max_cpus": 8}, "short": {"max_cpus": None}}),
        (('"total_jobs":\t0', '"route_destinations": "short", "queue_type": "Route"'),
         {"workq": {"max_time": "1m"}, "short": {"max_time": "1m"}}),
    ],
)  # fmt: skip
def test_queues_of_pbs_say_what_they_take(
    change: tuple[str, str], queues: dict[str, dict[str, object]]
) -> None:
    found = make_probe("pbs").look(answering("pbs", change)).settings["queues"]
    told = {one["name"]: one for one in found}
    assert {
        name: {key: told[name].get(key) for key in queues.get(name, {})} for name in told
    } == queues


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        (("", ""), "memory_resource", "h_vmem"),
        (("<=    YES         YES        2G", "<=    YES         JOB        2G"),
         "memory_per_slot", False),
        (("h_vmem     MEMORY    <=    YES ", "h_vmem     MEMORY    <=    NO "),
         "memory_resource", "s_vmem"),
        (("mf         MEMORY    <=    YES         NO", "mf MEMORY <= YES YES"),
         "memory_resource", "h_vmem"),
        (("h_rt       TIME      <=    YES", "h_rt TIME <= NO"), "time_resource", "s_rt"),
        (("allocation_rule    $pe_slots", "allocation_rule    $round_robin"),
         "parallel_environment", None),
        (("", ""), "gpu_resource", "gpu"),
        (("gpu=2,", ""), "gpu_resource", None),
        (("gpu=2,", "gpu=2(0 1),"), "gpu_resource", "gpu"),
        (("gpu        INT", "gpu        BOOL"), "gpu_resource", None),
    ],
)  # fmt: skip
def test_by_what_grid_engine_is_asked_for_is_found_out(
    change: tuple[str, str], key: str, value: object
) -> None:
    assert make_probe("sge").look(answering("sge", change)).settings["sge"].get(key) == value


ANOTHER = '''"UidDomain": "hpcpipe"
},
{
  "FileSystemDomain": "HPCPIPE",
  "TotalSlotCpus": 64,
  "TotalSlotMemory": 4096,
  "UidDomain": "elsewhere"'''
ALONE = ('"FileSystemDomain": "hpcpipe"', '"FileSystemDomain": "vm"')


@pytest.mark.parametrize(
    ("change", "queues", "limits"),
    [
        (("", ""), [{"max_memory": "20000M", "max_cpus": 20}], {"max_jobs": 100000}),
        (('"UidDomain": "hpcpipe"', ANOTHER), [{"max_memory": "20000M", "max_cpus": 64}],
         {"max_jobs": 100000}),
        (('"TotalSlotGPUs": 0', '"TotalSlotGPUs": 4'),
         [{"max_memory": "20000M", "max_cpus": 20, "max_gpus": 4}], {"max_jobs": 100000}),
        (ALONE, [], {"max_jobs": 100000, "watch_memory": True}),
        (("100000\n2147483647", "2147483647\n5 * 1000"),
         [{"max_memory": "20000M", "max_cpus": 20}], {"max_jobs": 5000}),
        (("100000", "2147483647"), [{"max_memory": "20000M", "max_cpus": 20}], {}),
    ],
)  # fmt: skip
def test_what_the_largest_slots_of_htcondor_have_is_a_queue(
    change: tuple[str, str], queues: list[dict[str, object]], limits: dict[str, object]
) -> None:
    settings = make_probe("htcondor").look(answering("htcondor", change)).settings
    assert settings["queues"] == [{"name": "pool"} | queue for queue in queues]
    assert settings["limits"] == limits


def test_accounting_groups_of_htcondor_are_known() -> None:
    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        if "GROUP_NAMES" in argv:
            return Done(tuple(argv), 0, "group_brain, group_heart\n")
        return answering("htcondor")(argv, cwd)

    assert make_probe("htcondor").look(run).accounts == ("group_brain", "group_heart")


def test_a_cluster_that_does_not_answer_is_no_site() -> None:
    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        del cwd
        return Done(tuple(argv), 1, "", "slurm_load_ctl_conf error: Unable to contact slurm")

    with pytest.raises(SchedulerUnavailable, match=r"^slurm_load_ctl_conf error"):
        make_probe("slurm").look(run)


def test_the_scheduler_whose_commands_are_here_is_looked_at(tmp_path: Path) -> None:
    def machine(*tools: str, qstat: str = "") -> Machine:
        def which(tool: str) -> str | None:
            return f"/bin/{tool}" if tool in tools else None

        return Machine({}, "login1", which, Machine.here().shipped, tmp_path, lambda _: qstat)

    assert find_probe(machine()).name == "local"
    assert find_probe(machine("sbatch", "qconf")).name == "slurm"
    assert find_probe(machine("qconf", "qstat")).name == "sge"
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites/lab.toml").write_text('extends = "slurm"\ndetect_command = "labsub"')
    assert find_probe(machine("labsub")).name == "slurm"
    with pytest.raises(ConfigError, match="a live torque cannot be looked at yet"):
        find_probe(machine("qstat", qstat="Version: 6.1.2"))


def test_a_site_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "site.toml"
    save_new(file, "one")
    with pytest.raises(UsageError, match="is there already, and is not overwritten"):
        save_new(file, "two")
    assert file.read_text() == "one"


# Held against the cluster

SLURM = Site(scheduler="slurm", limits=Limits(array_size=1001))
PER_SLOT = Site(scheduler="lsf", tables={"lsf": LSF(memory_per_slot=True)})
SGE, PBS, OAR = Site(scheduler="sge"), Site(scheduler="pbs"), Site(scheduler="oar")
HTCONDOR = Site(scheduler="htcondor")


def findings(site: Site, *changes: tuple[str, str]) -> Iterator[Finding]:
    loaded = Loaded(site, Path("site.toml"), (), "why")
    return diagnose(loaded, trial=False, run=answering(site.scheduler, *changes))


def sge(options: Sge) -> Site:
    return replace(SGE, tables={"sge": options})


# A setting, how it is changed, what the finding is about, and the verdict.
SETTINGS = [
    (SLURM, ("", ""), "correspond_after_task_cnt", "warning"),
    (SLURM, ("bf_continue", "bf_continue,correspond_after_task_cnt=500"),
     "correspond_after_task_cnt", "ok"),
    (SLURM, ("", ""), "MinJobAge", "ok"),
    (SLURM, ("= 300 sec", "= 5 sec"), "MinJobAge", "warning"),
    (SLURM, ("", ""), "kill_invalid_depend", "ok"),
    (SLURM, ("", ""), "order of jobs", "ok"),
    (SLURM, ("", ""), "accounting", "ok"),
    (SLURM, ("accounting_storage/slurmdbd", "accounting_storage/none"), "accounting", "warning"),
    (SLURM, ("", ""), "memory limit", "ok"),
    (SLURM, ("OverMemoryKill", "(null)"), "memory limit", "warning"),
    (SLURM, ("", ""), "EnforcePartLimits", "warning"),
    (SLURM, ("22.05.8", "19.05.1"), "Slurm", "warning"),
    (SLURM, ("22.05.8", "24.11.0"), "Slurm", "ok"),
    (PBS, ("", ""), "job history", "ok"),
    (PBS, ('"336:00:00"', '"00:10:00"'), "job history", "warning"),
    (PBS, ('"job_history_enable":\t"True"', '"x":\t1'), "job history", "warning"),
    (PBS, ('"scheduling":\t"True"', '"scheduling":\t"False"'), "server", "warning"),
    (PBS, ("Global:1000000 Avail_Local:1000000", "Global:0 Avail_Local:0"), "licences", "warning"),
    (PBS, ('"started":\t"True"', '"max_array_size":\t5'), "array size of workq", "warning"),
    (PBS, ("", ""), "memory limit", "ok"),
    (PER_SLOT, ("", ""), "CLEAN_PERIOD", "ok"),
    (PER_SLOT, ("PERIOD = 3600", "PERIOD = 60"), "CLEAN_PERIOD", "warning"),
    (PER_SLOT, ("10.1.0.14", "9.1.3"), "LSF", "wrong"),
    (PER_SLOT, ("", ""), "lsf.memory_per_slot", "ok"),
    (PER_SLOT, ("PER_TASK = Y", "PER_TASK = N"), "lsf.memory_per_slot", "wrong"),
    (PER_SLOT, ("", ""), "memory limit", "ok"),
    (PER_SLOT, ("ENFORCE = y", "ENFORCE = n"), "memory limit", "warning"),
    (OAR, ("", ""), "oar.core", "ok"),
    (replace(OAR, tables={"oar": Oar(core="kern")}), ("", ""), "oar.core", "wrong"),
    (OAR, ("", ""), "hosts", "ok"),
    (OAR, ('"state" : "Alive"', '"state" : "Absent"'), "hosts", "warning"),
    (OAR, ("", ""), "memory limit", "warning"),
    (HTCONDOR, ("", ""), "HTCondor", "ok"),
    (HTCONDOR, ("23.9.6", "10.0.9"), "HTCondor", "warning"),
    (HTCONDOR, ("", ""), "FILESYSTEM_DOMAIN", "ok"),
    (HTCONDOR, ALONE, "FILESYSTEM_DOMAIN", "wrong"),
    (HTCONDOR, ('"UidDomain": "hpcpipe"', ANOTHER.replace("HPCPIPE", "vm")), "FILESYSTEM_DOMAIN",
     "warning"),
    (HTCONDOR, ("", ""), "UID_DOMAIN", "ok"),
    (HTCONDOR, ('"UidDomain": "hpcpipe"', ANOTHER), "UID_DOMAIN", "warning"),
    (HTCONDOR, ('"UidDomain": "hpcpipe"', '"UidDomain": "vm"'), "UID_DOMAIN", "wrong"),
    (HTCONDOR, ("", ""), "accounting", "ok"),
    (HTCONDOR, ("/tmp/hpcpipe-htcondor/spool/history", "Not defined"), "accounting", "warning"),
    (HTCONDOR, ("history\nNot defined", "history\n1000000"), "accounting", "warning"),
    (HTCONDOR, ("", ""), "continuations", "ok"),
    (HTCONDOR, ("TotalLocalJobsRunning < 200", "False"), "continuations", "wrong"),
    (HTCONDOR, ("", ""), "time limit", "ok"),
    (HTCONDOR, ("\n2\n/", "\n10 * 60\n/"), "time limit", "warning"),
    (HTCONDOR, ("", ""), "memory limit", "ok"),
    (HTCONDOR, ("MemoryUsage", "DiskUsage"), "memory limit", "warning"),
    (SGE, ("", ""), "accounting", "ok"),
    (SGE, ("accounting=true", "accounting=false"), "accounting", "warning"),
    (SGE, ("accounting_flush_time=00:00:00", "accounting_flush_time=00:01:00"), "accounting",
     "warning"),
    (SGE, ("", ""), "memory limit", "ok"),
    (sge(Sge(memory_resource="mem_free", memory_per_slot=False)), ("", ""),
     "memory limit", "warning"),
    (sge(Sge(memory_resource="")), ("", ""), "memory", "warning"),
    (sge(Sge(memory_resource="h_wmem")), ("", ""), "sge.memory_resource", "wrong"),
    (sge(Sge(memory_per_slot=False)), ("", ""), "sge.memory_per_slot", "wrong"),
    (SGE, ("YES        2G", "YES        0"), "memory by default", "warning"),
    (SGE, ("", ""), "sge.parallel_environment", "ok"),
    (sge(Sge(parallel_environment="mpi")), ("", ""), "sge.parallel_environment",
     "wrong"),
    (SGE, ("$pe_slots", "$fill_up"), "sge.parallel_environment", "warning"),
    (SGE, ("", ""), "GPUs", "warning"),
    (sge(Sge(time_resource="h_rl")), ("", ""), "sge.time_resource", "wrong"),
    (SGE, ("enforce_project              false", "enforce_project true"), "defaults.account",
     "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("site", "change", "about", "verdict"), SETTINGS)
def test_each_setting_that_matters_is_judged(
    site: Site, change: tuple[str, str], about: str, verdict: str
) -> None:
    found = [one for one in findings(site, change) if one.about == about]
    assert [one.verdict for one in found] == [verdict]
    assert bool(found[0].do) is (verdict != "ok")


CGROUPS = "Not defined\nhard"  # their base, which is not set, and their policy


@pytest.mark.parametrize(
    ("changes", "keeper"),
    [
        ([], "vm keeps it by its policy (WANT_HOLD)"),
        ([(CGROUPS, "htcondor\nhard")], "vm keeps it by cgroups"),
        ([(CGROUPS, "htcondor\nnone")], "vm keeps it by its policy (WANT_HOLD)"),
        ([(CGROUPS, "htcondor\nnone"), ("MemoryUsage", "DiskUsage")], "no host is known"),
    ],
)
def test_it_tells_who_keeps_a_limit_of_memory_on_htcondor(
    changes: list[tuple[str, str]], keeper: str
) -> None:
    [said] = [one.said for one in findings(HTCONDOR, *changes) if one.about == "memory limit"]
    assert said.startswith(keeper)


@pytest.mark.parametrize(
    ("change", "folder", "verdict"),
    [
        (("", ""), "/tmp", "ok"),
        (("\n0\n2\n", "\n1\n2\n"), "/tmp", "warning"),
        (("\n0\n2\n", "\n1\n2\n"), "/", "ok"),
        (("hard\nNot defined", "hard\n/var/tmp,/tmp"), "/tmp", "warning"),
    ],
)
def test_runs_below_tmp_are_warned_of_where_htcondor_takes_none(
    change: tuple[str, str], folder: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = {one.about: one.verdict for one in findings(HTCONDOR, change)}
    assert found["runs below /tmp"] == verdict


@pytest.mark.parametrize(("installed", "verdict"), [("htcondor", "ok"), ("", "warning")])
def test_it_tells_whether_htcondor_s_bindings_are_installed(
    installed: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hpcpipe.schedulers.htcondor.probe.find_spec", lambda name: name == installed
    )
    found = {one.about: one.verdict for one in findings(HTCONDOR)}
    assert found["HTCondor's bindings"] == verdict


def test_any_queue_of_a_file_is_held_against_what_htcondor_has() -> None:
    queues = (Queue(name="short", max_cpus=20), Queue(name="large", max_cpus=24))
    found = {one.about: (one.verdict, one.do) for one in findings(replace(HTCONDOR, queues=queues))}
    assert found["queue short"] == ("ok", "")
    assert found["queue large"] == ("wrong", "set its max_cpus = 20")


AGED = """PriorityMaxAge          = 7-00:00:00
PriorityType            = priority/multifactor
PriorityWeightAge       = 1000"""


@pytest.mark.parametrize(
    ("nice", "kept"), [(None, "slurm.nice = 6 keeps"), (9, "each batch is nicer by 9")]
)
def test_it_tells_what_keeps_the_planned_order_where_a_job_s_age_counts(
    nice: int | None, kept: str
) -> None:
    site = replace(SLURM, tables={"slurm": Slurm(nice=nice)})
    [said] = [
        one.said
        for one in findings(site, ("PriorityType            = priority/basic", AGED))
        if one.about == "order of jobs"
    ]
    assert "an hour's wait is worth 6 (" in said
    assert kept in said


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
        init = ("site", "init", "--scheduler", cluster.dialect.name, where)
        cluster.hpcpipe(*init)
        refused = cluster.hpcpipe(*init, status=2)
        assert "is not overwritten" in refused.stderr
        with where.open("a") as file:
            file.write('[software.sh]\nsetup = "true"\n')
    told = json.loads(cluster.hpcpipe("site", "doctor", "--json", "--site", where).stdout)
    verdicts = {one["about"]: one["verdict"] for one in told}
    proved = ("submission", "run", "nodes", "Python", "home folder", "software sh")
    assert {about: verdicts[about] for about in proved} == dict.fromkeys(proved, "ok")
    assert "wrong" not in verdicts.values()
    asks = ("--cpus", "2", "--memory", "50M", "--time", "5m")
    cluster.hpcpipe("map", "--site", where, "--wait", *asks, "--", "echo", ":::", "a", "b")
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


def test_a_folder_that_cannot_be_written_to_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(**_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    *_, last = diagnose(Loaded(Site(), Path("site.toml"), (), "why"))
    assert (last.verdict, last.said) == ("wrong", f"{tmp_path}: Permission denied")
