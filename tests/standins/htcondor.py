"""HTCondor in miniature, after 23.9.6 and 25.14: condor_submit, _submit_dag, _q, _history, _rm,
_hold, _release; and what tells of the pool: condor_status, _config_val, _version.

DAGMan is no process here: whoever holds the lock does what it would do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from typing import Any

from standins import dagfile
from standins.dagfile import Refused
from standins.engine import Element, Engine, Job, State, Step, Unreachable, refuse

COMMANDS = (
    "condor_config_val",
    "condor_history",
    "condor_hold",
    "condor_q",
    "condor_release",
    "condor_rm",
    "condor_status",
    "condor_submit",
    "condor_submit_dag",
    "condor_version",
)

HOST = "slot1_1@vm"
DOWN = "ERROR: Can't find address of local schedd"
KNOWN = {
    *("universe", "executable", "arguments", "output", "error", "log", "initialdir", "hold"),
    *("should_transfer_files", "request_cpus", "request_memory", "request_disk", "request_gpus"),
    *("require_gpus", "allowed_job_duration", "requirements", "concurrency_limits"),
    *("accounting_group", "environment", "getenv", "notify_user", "priority", "periodic_remove"),
    *("notification", "description", "email_attributes"),
}
HOLDS = ("time", "memory", "output")  # causes of an end for which a job stays, held
HELD = "submitted on hold at user's request", 15
SLOT = {
    **{"Machine": "vm", "MyAddress": "<127.0.0.1:9618>"},
    **{"FileSystemDomain": "standin", "UidDomain": "standin"},
    **{"TotalSlotCpus": 8, "TotalSlotMemory": 8192, "TotalSlotGPUs": 0},
}
SETTINGS = {
    **{"FILESYSTEM_DOMAIN": "standin", "UID_DOMAIN": "standin", "DAGMAN_USE_STRICT": "0"},
    **{"HISTORY": "/var/lib/condor/spool/history", "PERIODIC_EXPR_INTERVAL": "60"},
    **{"MAX_JOBS_PER_OWNER": "100000", "MAX_JOBS_SUBMITTED": "2147483647"},
    **{"START_LOCAL_UNIVERSE": "TotalLocalJobsRunning < 200"},
    **{"FULL_HOSTNAME": "standin", "BASE_CGROUP": "htcondor", "CGROUP_MEMORY_LIMIT_POLICY": "hard"},
}
Ad = dict[str, Any]


class House:
    """What HTCondor does with jobs: those in a DAG are submitted when they may start."""

    def step(self, state: State, job: Job, element: Element) -> Step:
        """Start what fits; DAGMan itself needs no slot."""
        del state, element
        return Step.WAIT if "file" in job.facts else Step.START

    def environment(self, job: Job, element: Element) -> Mapping[str, str]:
        """Give the job its own ad to read."""
        del element
        ad = Path(os.environ["STANDIN"], f"ad.{job.number}")
        facts = {"ClusterId": job.number, "NumJobStarts": 0, **job.facts["ad"]}
        ad.write_text("".join(f"{name} = {json.dumps(facts[name])}\n" for name in sorted(facts)))
        return {"_CONDOR_JOB_AD": str(ad)}

    def words(self, job: Job, element: Element, script: Path) -> Sequence[str]:
        """Run the executable where it lies, for nothing is transferred."""
        del element, script
        return [job.facts["executable"], *job.facts["arguments"]]

    def folder(self, job: Job) -> str:
        """Start in the initial directory."""
        return job.folder


class Pool(Engine):
    """The engine, with DAGMan."""

    def _move_on(self, state: State, lock: int) -> None:
        for job in [*state.jobs.values()]:
            rule = job.facts.get("rule")
            if rule and job.all_are("ended") and in_queue(job) and compiled(rule)(_ad(job)):
                said = f"The job attribute PeriodicRemove expression '{rule}' evaluated to TRUE"
                job.facts["removed"] = said
            if "file" in job.facts and not job.held and job.all_are("waiting"):
                DagMan(state, job).move_on()
        super()._move_on(state, lock)

    def remove(self, state: State, job: Job) -> None:
        """Take a job out of the queue, and with a DAG all that is of it."""
        job.facts["removed"] = said = f"via condor_rm (by user {getuser()})"
        for element in job.elements.values():
            self.cancel(element)
        if "file" in job.facts:
            for other in state.jobs.values():
                if other.facts["ad"].get("DAGManJobId") == job.number and in_queue(other):
                    self.remove(state, other)
            dagman = DagMan(state, job)
            if "nodes" in job.facts:
                dagman.log("INTERNAL *** DAGMAN_FINISHED 2 ***")
            dagman.own_event(9, f"Job was aborted.\n\t{said}")


def in_queue(job: Job) -> bool:
    """Return whether a job is in the queue: also one that exceeded a limit, until it is removed."""
    (element,) = job.elements.values()
    if element.state != "ended":
        return True
    return element.cause in HOLDS and "removed" not in job.facts


class DagMan:
    """One DAG's manager, for the time that the state is open."""

    def __init__(self, state: State, job: Job) -> None:
        self.state, self.job, self.folder = state, job, Path(job.folder)

    def move_on(self) -> None:
        """Do all that can be done now."""
        facts = self.job.facts
        if "nodes" not in facts:
            try:
                facts["nodes"] = dagfile.parse(self.folder / facts["file"], facts)
            except Refused:
                self._over(1)
                return
            self.log(f"INTERNAL *** DAGMAN_STARTED {self.job.number}.0 ***")
        nodes: dict[str, dagfile.Node] = facts["nodes"]
        again = True
        while again:
            again = sum(self._step(nodes, name) for name in nodes) > 0  # each of them
        if all(node.state in ("done", "failed", "futile") for node in nodes.values()):
            self._over(int(any(node.state != "done" for node in nodes.values())))

    def _step(self, nodes: Mapping[str, dagfile.Node], name: str) -> bool:
        node = nodes[name]
        if node.state == "submitted":
            return self._look(name, node)
        if node.state != "waiting" or any(nodes[one].state != "done" for one in node.parents):
            if node.state == "waiting" and any(
                nodes[one].state in ("failed", "futile") for one in node.parents
            ):
                node.state = "futile"
                return True
            return False
        if node.limit and node.limit <= sum(
            one.state == "submitted" and one.category == node.category for one in nodes.values()
        ):
            return False
        if node.pre and not self._pre(name, node):
            return node.state != "waiting"
        if node.noop:
            self.log(f"{name} JOB_SUCCESS 0 - - 1")
            self._post(name, node, good=True)
            return True
        try:
            job = describe(self.folder / node.description, {"JOB": name}, self.folder)
        except Refused:
            self.log(f"{name} SUBMIT_FAILURE - - - 1")
            self._post(name, node, good=False)
            return True
        ad = {"DAGManJobId": self.job.number, "DAGNodeName": name}
        job.number, job.facts["ad"] = self.state.next(), {**job.facts["ad"], **ad}
        self.state.jobs[job.number] = job
        node.state, node.cluster = "submitted", job.number
        self.log(f"{name} SUBMIT {job.number}.0 - - 1")
        self._event(0, f"Job submitted from host: <127.0.0.1:9618>\n    DAG Node: {name}", job)
        return True

    def _pre(self, name: str, node: dagfile.Node) -> bool:
        if time.time() < node.deferred:
            return False
        code = self._run(node.pre, name)
        if code == node.skip:
            node.state = "done"
        elif code == node.defer:
            node.deferred = time.time() + node.seconds
        elif code:
            self.log(f"{name} PRE_SCRIPT_FAILURE - - - 1")
            node.state = "failed"
        return code == 0

    def _run(self, words: Sequence[str], name: str) -> int:
        argv = [name if word == "$JOB" else word for word in words]
        return subprocess.run(argv, cwd=self.folder, check=False).returncode

    def _look(self, name: str, node: dagfile.Node) -> bool:
        job = self.state.jobs[node.cluster]
        (element,) = job.elements.values()
        if element.started and not node.began:
            node.began = True
            said = f"Job executing on host: <127.0.0.1:9618>\n\tSlotName: {HOST}"
            self._event(1, said, job, element.started)
        if element.state == "ended" and element.cause in HOLDS and not node.held:
            node.held = True
            why, code = hold_reason(job, element)
            self._event(12, f"Job was held.\n\t{why}\n\tCode {code} Subcode 0", job)
        if in_queue(job):
            return False
        good = element.code == 0 and not element.cause
        if element.cause:
            self._event(9, f"Job was aborted.\n\t{job.facts['removed']}", job)
            self.log(f"{name} JOB_ABORTED {job.number}.0 - - 1")
        else:
            code = element.code or 0
            how = f"(1) Normal termination (return value {code})"
            if code < 0:
                how = f"(0) Abnormal termination (signal {-code})\n\t(0) No core file"
            self._event(5, f"Job terminated.\n\t{how}{USAGE}", job, element.ended)
            self.log(f"{name} JOB_TERMINATED {job.number}.0 - - 1")
        self.log(f"{name} JOB_{'SUCCESS' if good else 'FAILURE'} {element.code or 0} - - 1")
        self._post(name, node, good=good)
        return True

    def _post(self, name: str, node: dagfile.Node, *, good: bool) -> None:
        if node.post:
            good = self._run(node.post, name) == 0
            self.log(f"{name} POST_SCRIPT_TERMINATED - - - 1")
        node.state = "done" if good else "failed"

    def _over(self, code: int) -> None:
        (element,) = self.job.elements.values()
        element.state, element.ended, element.code = "ended", time.time(), code
        self.log(f"INTERNAL *** DAGMAN_FINISHED {code} ***")
        how = f"(1) Normal termination (return value {code})"
        self.own_event(5, f"Job terminated.\n\t{how}{USAGE}")

    def log(self, line: str) -> None:
        """Note what happens in the jobstate log, if there is one."""
        if "jobstate" in self.job.facts:
            with open(self.folder / self.job.facts["jobstate"], "a") as log:
                log.write(f"{int(time.time())} {line}\n")

    def _event(self, kind: int, said: str, job: Job, at: float | None = None) -> None:
        self._note("nodes.log", kind, said, job, at)

    def own_event(self, kind: int, said: str) -> None:
        """Note in the log of DAGMan's own job what becomes of it."""
        self._note("dagman.log", kind, said, self.job, None)

    def _note(self, name: str, kind: int, said: str, job: Job, at: float | None) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at or time.time()))
        with open(self.folder / f"{self.job.facts['file']}.{name}", "a") as log:
            log.write(f"{kind:03} ({job.number:03}.000.000) {when} {said}\n...\n")


USAGE = "".join(
    f"\n\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  {whose} Usage"
    for whose in ("Run Remote", "Run Local", "Total Remote", "Total Local")
)


def hold_reason(job: Job, element: Element) -> tuple[str, int]:
    """Say why a job is held, and by which code."""
    if element.cause == "output":
        why = "as standard output: No such file or directory (errno 2)"
        return f"Error from {HOST}: Failed to open '{job.output}' {why}", 7
    if element.cause == "time":
        limit = int(job.limit or 0)
        return f"The job exceeded allowed job duration of {limit // 60:02}:{limit % 60:02}", 46
    return f"Job has gone over cgroup memory limit of {job.memory} megabytes", 34


# --- condor_submit, condor_submit_dag -------------------------------------------------------------


def describe(file: Path, macros: Mapping[str, str], cwd: Path) -> Job:
    """Make a job of a submit description."""
    said: dict[str, str] = {}
    ad: Ad = {}
    queued = False
    for line in file.read_text().splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if queued:
            raise Refused("the stand-in reads nothing after queue")
        if line.strip().lower() == "queue":
            queued = True
        elif re.fullmatch(r"(\+|My\.)\w+", name) and equals:
            ad[re.sub(r"^(\+|My\.)", "", name)] = json.loads(value)
        elif equals and (name.lower() in KNOWN or name.startswith("hpcpipe_")):
            said[name.lower()] = re.sub(r"\$\((\w+)\)", lambda m: macros.get(m[1], ""), value)
        elif line.strip() and not line.startswith("#"):
            raise Refused(f"ERROR: Parse error in {file.name}: {line}")
    if not queued:
        raise Refused(f"ERROR: {file.name} has no queue statement")
    if "executable" not in said:
        raise Refused("ERROR: No 'executable' parameter was provided")
    folder = said.get("initialdir", str(cwd))
    if not Path(folder).is_dir():
        raise Refused(f"ERROR: No such directory: {folder}")
    executable = Path(folder, said["executable"])
    if not executable.exists():
        why = "No such file or directory"
        raise Refused(f"\nERROR: Can't access executable file {executable}: {why}")
    limit = said.get("allowed_job_duration")
    job = Job(
        0, file.stem, b"", folder, {}, None,
        cpus=0 if said.get("universe") == "local" else int(said.get("request_cpus", "1")),
        memory=int(said["request_memory"]) if "request_memory" in said else None,
        limit=float(limit) if limit else None,
        held=said.get("hold", "false").lower() == "true",
        output=str(Path(folder, said.get("output", "/dev/null"))),
        facts={
            "executable": str(executable), "arguments": _words(said.get("arguments", '""')),
            "ad": ad, "rule": said.get("periodic_remove"),
        },
    )  # fmt: skip
    if not Path(job.output).parent.is_dir():  # which is found out when it is to start
        (element,) = job.elements.values()
        element.state, element.cause, element.ended = "ended", "output", time.time()
    return job


def _words(arguments: str) -> list[str]:
    """Split arguments in HTCondor's newer syntax, as far as we use it."""
    if not re.fullmatch(r'"[^"]*"', arguments) or "$(" in arguments:
        raise Refused(f"the stand-in takes no arguments such as {arguments}")
    words = re.findall(r"'((?:[^']|'')*)'|([^' ]+)", arguments[1:-1])
    return [quoted.replace("''", "'") or bare for quoted, bare in words]


def answered(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run a command, and say its refusal."""
    try:
        return command(argv)
    except Refused as refused:
        return refuse(str(refused), 1)
    except Unreachable:
        return refuse(DOWN, 1)


def condor_submit(argv: list[str]) -> int:
    """Submit what a description says, or only look whether one could."""

    def run(argv: list[str]) -> int:
        dry = argv[:2] == ["-dry-run", "-"]
        words = [word for word in argv[2 if dry else 0 :] if word != "-terse"]
        if len(words) != 1 or words[0].startswith("-"):
            raise Refused(f"ERROR: the stand-in takes no {' '.join(argv)}")
        if not Path(words[0]).exists():
            raise Refused(f'ERROR: Can\'t open "{words[0]}" for reading')
        job = describe(Path(words[0]).absolute(), {}, Path.cwd())
        if dry:
            print(f"Dry-Run job(s)\nExecutable = {job.facts['executable']}")
            return 0
        with Pool(House()).open() as state:
            job.number = state.next()
            state.jobs[job.number] = job
        print(f"{job.number}.0 - {job.number}.0")
        return 0

    return answered(run, argv)


def condor_submit_dag(argv: list[str]) -> int:
    """Submit DAGMan with a DAG."""

    def run(argv: list[str]) -> int:
        words, appended, force = [*argv], list[str](), False
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option == "-append":
                appended.append(words.pop(0))
            elif option == "-force":
                force = True
            elif option not in ("-no_recurse", "-dont_suppress_notification"):
                raise Refused(f"ERROR: unknown option {option}")
        (file,) = words
        if not Path(file).exists():
            raise Refused("ERROR: Provided file path does not exist")
        if force:
            print("Renaming rescue DAGs newer than number 0", file=sys.stderr, flush=True)
        made = [f"{file}.{name}" for name in ("condor.sub", "lib.out", "lib.err", "dagman.log")]
        there = "".join(f'ERROR: "{one}" already exists.\n' for one in made if Path(one).exists())
        if there and not force:
            raise Refused(f"{there}{dagfile.AGAIN}")
        ad: Ad = {}
        held = False
        for line in appended:
            name, _, value = (part.strip() for part in line.partition("="))
            if name == "hold":
                held = value.lower() == "true"
            elif name.startswith("My."):
                ad[name[3:]] = json.loads(value)
            else:
                raise Refused(f"ERROR: Parse error in command: {line}")
        with Pool(House()).open() as state:
            facts = {"file": file, "ad": ad, "executable": "condor_dagman"}
            job = Job(state.next(), file, b"", os.getcwd(), {}, None, held=held, facts=facts)
            state.jobs[job.number] = job
            for name in made:
                Path(name).touch()
        print(f"Submitting job(s).\n1 job(s) submitted to cluster {job.number}.\n")
        return 0

    return answered(run, argv)


# --- condor_rm, condor_hold, condor_release -------------------------------------------------------


def _act(argv: list[str], verb: str, done: str, act: Callable[[Pool, State, Job], object]) -> int:
    def run(argv: list[str]) -> int:
        status, pool = 0, Pool(House())
        with pool.open() as state:
            asked = [(f"ClusterId == {one}", f"jobs in cluster {one}") for one in argv]
            if argv[0] == "-constraint":
                asked = [(argv[1], f"jobs matching constraint ({argv[1]})")]
            for constraint, what in asked:
                true = compiled(constraint)
                found = [job for job in state.jobs.values() if in_queue(job) and true(_ad(job))]
                if verb == "release":
                    found = [job for job in found if job.held]
                for job in found:
                    if in_queue(job):
                        act(pool, state, job)
                if found:
                    print(f"All {what} have been {done}")
                else:
                    status = refuse(f"\nCouldn't find/{verb} all {what}", 1)
        return status

    return answered(run, argv)


def condor_rm(argv: list[str]) -> int:
    """Remove jobs."""
    return _act(argv, "remove", "marked for removal", Pool.remove)


def condor_hold(argv: list[str]) -> int:
    """Hold jobs that wait."""
    return _act(argv, "hold", "held", lambda *of: setattr(of[2], "held", True))


def condor_release(argv: list[str]) -> int:
    """Release jobs that are held."""
    return _act(argv, "release", "released", lambda *of: setattr(of[2], "held", False))


# --- condor_q, condor_history ---------------------------------------------------------------------

TOKENS = r'\s+|\|\||&&|=[!=?]=?|[<>!(){},-]|[A-Za-z]\w*|\d+|"[^"]*"'  # of constraints
PYTHON = {
    **{"||": " or ", "&&": " and ", "=!=": " is not ", "=?=": "=="},
    **{"undefined": "None", "member": "member", "time": "time", "!": " not "},
}


def compiled(constraint: str) -> Callable[[Ad], bool]:
    """Make a function of an expression."""
    if re.sub(TOKENS, "", constraint):
        raise Refused(f"Error: Parse error of: {constraint}")

    def translate(match: re.Match[str]) -> str:
        word = match[0]
        plain = not word[0].isalpha() or word in PYTHON
        return PYTHON.get(word, word) if plain else f"ad.get({word!r})"

    code = compile(re.sub(TOKENS, translate, constraint).strip(), "constraint", "eval")
    names = {"member": lambda value, of: value in of, "time": time.time}
    return lambda ad: bool(eval(code, names, {"ad": ad}))


def _ad(job: Job) -> Ad:
    (element,) = job.elements.values()
    ad: Ad = {"ClusterId": job.number, "ProcId": 0, "Iwd": job.folder, **job.facts["ad"]}
    ad |= {"ExitBySignal": False, "EnteredCurrentStatus": int(element.ended or job.submitted)}
    if element.started:
        ad |= {"LastRemoteHost": HOST, "NumJobStarts": 1}
    if element.state == "running" or ("nodes" in job.facts and element.state == "waiting"):
        return ad | {"JobStatus": 2}
    if element.state == "waiting":
        held = {"JobStatus": 5, "HoldReason": HELD[0], "HoldReasonCode": HELD[1]}
        return ad | (held if job.held else {"JobStatus": 1})
    if element.started:
        wall = float(int(element.ended) - int(element.started))
        ad |= {"RemoteWallClockTime": wall, "ResidentSetSize": element.memory << 10}
        ad["MemoryUsage"] = "\\/Expr(((ResidentSetSize + 1023) / 1024))\\/"
    if element.cause in HOLDS:
        why, code = hold_reason(job, element)
        ad |= {"JobStatus": 5, "HoldReason": why, "HoldReasonCode": code}
    elif element.code is not None and element.code < 0:
        ad |= {"JobStatus": 4, "ExitBySignal": True, "ExitSignal": -element.code}
    else:
        ad |= {"JobStatus": 4, "ExitCode": element.code}
    if removed := element.cause and job.facts.get("removed"):
        if ad["JobStatus"] == 5:  # then it is no longer so, but was
            last = {f"Last{name}": ad.pop(name) for name in ("HoldReason", "HoldReasonCode")}
            ad |= {"LastJobStatus": 5, **last}
        ad |= {"JobStatus": 3, "RemoveReason": removed}
    return ad


def _options(argv: list[str], *allowed: str) -> dict[str, str]:
    words = [word for word in argv if word != "-json"]
    said = dict(zip(words[::2], words[1::2], strict=True))
    if len(words) == len(argv) or not said.keys() <= {*allowed}:
        raise Refused(f"Error: the stand-in takes no {' '.join(argv)}")
    return said


def _print(ads: Iterator[Ad], said: Mapping[str, str], empty: str) -> None:
    wanted = said["-attributes"].split(",")
    rows = [{name: ad[name] for name in sorted(wanted) if name in ad} for ad in ads]
    text = "\n,\n".join(json.dumps(row, indent=2).replace("\\\\/", "\\/") for row in rows)
    print(f"[\n{text}\n]" if rows else empty)


def condor_q(argv: list[str]) -> int:
    """Print the ads in the queue."""

    def run(argv: list[str]) -> int:
        said = _options(argv, "-attributes", "-constraint")
        true = compiled(said["-constraint"])
        with Pool(House()).open() as state:
            pass
        found = (_ad(job) for job in state.jobs.values() if in_queue(job))
        _print((ad for ad in found if true(ad)), said, "")
        return 0

    return answered(run, argv)


def condor_history(argv: list[str]) -> int:
    """Print the ads of what has left the queue, the last first."""

    def run(argv: list[str]) -> int:
        said = _options(argv, "-attributes", "-constraint", "-since")
        true, stop = compiled(said["-constraint"]), compiled(said.get("-since", "1 == 2"))
        with Pool(House()).open() as state:
            pass
        gone = [_ad(job) for job in state.jobs.values() if not in_queue(job)]
        gone.sort(key=lambda ad: -ad["EnteredCurrentStatus"])
        until = next((n for n, ad in enumerate(gone) if stop(ad)), len(gone))
        _print((ad for ad in gone[:until] if true(ad)), said, "[\n]")
        return 0

    return answered(run, argv)


def condor_status(argv: list[str]) -> int:
    """Print the ad of the one slot."""

    def run(argv: list[str]) -> int:
        said = _options(argv, "-attributes", "-constraint")
        _print(iter([SLOT]), said, "")
        return 0

    return answered(run, argv)


def condor_config_val(argv: list[str]) -> int:
    """Print settings, of whichever daemon is asked, or of the configuration here."""
    status = 0
    for name in argv:
        if name in SETTINGS or (name.isupper() and argv[0].startswith("-")):
            print(SETTINGS.get(name, "Not defined"))
        elif name.isupper():
            status = refuse(f"Not defined: {name}", 1)
    return status


def condor_version(argv: list[str]) -> int:
    """Print the version."""
    del argv
    print("$CondorVersion: 23.9.6 2026-07-12 $\n$CondorPlatform: X86_64-Debian_13 $")
    return 0
