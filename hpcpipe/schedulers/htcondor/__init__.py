"""HTCondor.

Commands: ``condor_submit -dry-run``, ``condor_submit_dag``, ``condor_q -json``, ``condor_history
-json``, ``condor_release``, ``condor_rm``. Versions seen: 23.9.6, and of 25.14 what it printed.

Dependencies: ``PARENT`` and ``CHILD`` of a DAG.

Site keys: ``[htcondor] options``, extra ``#HTCONDOR`` lines of the submit description, passed
through whole.

Oddities worth knowing:

* HTCondor itself knows no dependencies, only DAGMan does. A submission is one DAG, whose DAGMan job
  is handed over held; nodes are added to the file until it is let go. A job's id here is the DAG's
  cluster and a node, ``19/n2``; of an element ``19/n2_7``. Each is a cluster of its own once DAGMan
  has submitted it, which ``condor_q -nobatch -dag`` shows.
* All that is held together is let go together.
* DAGMan starts what comes after a failure, too, since jobs that any end will do for are among it.
* What waits for a job of an earlier submission has DAGMan run a script every ten seconds, which
  looks whether that has ended.
* What waits in its DAG for a node that is cancelled before it could begin starts no earlier than
  that could have begun.
* A continuation is a job of the *local* universe, on the host of schedd: it needs no slot, and no
  node that may submit. ``requirements`` would be held against schedd, so it has none.
* A job that cannot be started, or that exceeds its time or memory, is *held*. The next ``status``
  says why, and removes it. If nobody looks, HTCondor does (``periodic_remove``): at once if a limit
  was exceeded, else after ten minutes; never a job that a person holds. The history has the cause
  as ``LastHoldReason``.
* A time limit is ``allowed_job_duration``: ``allowed_execute_duration`` is not kept of a job that
  transfers no files (23.9.6). HTCondor looks at it every ``PERIODIC_EXPR_INTERVAL``, a minute.
* A memory limit is that of the slot, which may be more than was asked for. It is kept by cgroups,
  or where the pool has ``use POLICY : HOLD_IF_MEMORY_EXCEEDED``; elsewhere by nobody.
* DAGMan does nothing for a run below ``/tmp`` unless ``DAGMAN_USE_STRICT`` is 0; nor may jobs have
  the ``/tmp`` of their submitter. What DAGMan gave up so could not be started, says ``status``, and
  names the file where DAGMan says why.
* DAGMan has run the PRE script of what waits for a place, so that what is cancelled meanwhile is
  submitted all the same: its own script looks again before it begins.
* What schedd refuses, DAGMan submits once more, and then gives up; its words are in ``dagman.out``.
* ``condor_submit_dag`` looks at no submit description, so that of each batch is tried first.
* Before 23.6.1, DAGMan suppresses the mail of its nodes by default. The subject of a mail does not
  contain the job's name, so the text does (``email_attributes``).
* There are no queues: one in the site file is a set of options, and its name is not passed on.
* Nothing is transferred: nodes must share the filesystem, under one ``FileSystemDomain``.
* How a job ended is in the event log of its DAG, which is read where HTCondor's bindings are
  installed (``hpcpipe[htcondor]``) and the DAG is in the queue; else the history is asked. On the
  host of its schedd that is a file, which answers though schedd does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import ClassVar, TypeVar

from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason
from hpcpipe.schedulers.base import (
    CommandScheduler,
    Done,
    Run,
    in_clean_environment,
    printed,
    run_command,
)
from hpcpipe.schedulers.htcondor import classads as jobads
from hpcpipe.schedulers.htcondor.classads import cluster_of, job_of
from hpcpipe.schedulers.htcondor.dagman import Dag, Wait
from hpcpipe.schedulers.htcondor.submit_file import describe

T = TypeVar("T")

_FIRST = "Renaming rescue DAGs newer than number 0\n"  # it says, whether it then submits or not


class HTCondor(CommandScheduler):
    """HTCondor by its command line tools, and DAGMan."""

    name: ClassVar[str] = "htcondor"
    capabilities: ClassVar[Capabilities] = Capabilities(
        success=False, mail=True, continues_on_submit_host=True, no_path=r'[\n"\\]'
    )
    # "(null)" is how 23.9 calls a schedd of which the collector is to tell, and does not answer.
    unreachable_words: ClassVar[str] = (
        r"(?im)can't find address|failed to (connect|fetch ads)|unable to (locate|contact)"
        r"|unknown host|: \(null\)$|communication error|(CEDAR|SECMAN):\d+"
    )
    passing_words: ClassVar[str] = "would exceed MAX_JOBS"

    def __init__(self, run: Run = run_command, cancels: int | None = None) -> None:
        super().__init__(run, cancels)
        self._held: tuple[str, Dag] | None = None  # its cluster; nodes may still be added
        self._dags: Mapping[str, Dag] = {}  # seen in the queue last, by cluster

    def find_instance(self) -> str:
        # Out of the configuration, in the order in which HTCondor's own commands decide.
        names = ("SCHEDD_HOST", "SCHEDD_NAME", "FULL_HOSTNAME")
        told = self.ask(("condor_config_val", *names))
        defined = (one for one in names if f"Not defined: {one}\n" not in told.stderr)
        facts = dict(zip(defined, told.stdout.split(), strict=False))
        here = facts.get("FULL_HOSTNAME", "")
        name = facts.get("SCHEDD_NAME", here)
        name = name if "@" in name or name == here else f"{name}@{here}"
        return facts.get("SCHEDD_HOST", name).lower()

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        folder = script.parents[1]
        description = describe(script)
        tried = ("condor_submit", "-dry-run", "-", description.path)
        self.refuse(self._run(in_clean_environment(tried), folder))
        cluster, dag = self._held or ("", None)
        joins = held or cluster in (cluster_of(one.job) for one in after)
        if dag is None or dag.folder != folder or not joins:
            cluster, dag = "", Dag(folder, _unused(folder, description.path.removesuffix(".sub")))
            dag.begin()
        node = dag.add(description, [*self._waits(after, cluster, dag)], token)
        if not cluster:
            words = self.submit_command(Path(f"{dag.name}.dag"), after, token=token, held=held)
            cluster = self.read_submit(self.hand_over(words, folder))
            self._held = (cluster, dag) if held else self._held
        return f"{cluster}/{node}"

    def _waits(self, after: Sequence[After], cluster: str, dag: Dag) -> Iterator[Wait]:
        """Find the nodes that a job is to wait for; those of a DAG that is gone are over."""
        dags = {cluster: dag}
        if others := [one.job for one in after if cluster_of(one.job) != cluster]:
            rows = self.read(self._rows, self.ask(self.poll_command(others)))
            dags |= _heads(rows)
        for one in after:
            if above := dags.get(cluster_of(one.job)):
                node = self.element(one.job, one.element).partition("/")[2]
                yield Wait(above, node, one.kind == "each")

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        del after, token
        hold = ("-append", "hold = true") if held else ()
        mine = ("-append", f'My.HpcpipeDag = "{script.with_suffix("")}"')
        mails = "-dont_suppress_notification"  # the default until 23.6
        return ("condor_submit_dag", "-force", mails, *hold, *mine, str(script))

    def read_submit(self, done: Done) -> str:
        done = done._replace(stderr=done.stderr.removeprefix(_FIRST))
        return self.prove(done, printed(done, r"submitted to cluster (\d+)"))[0]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        self._held = None
        return ("condor_release", *dict.fromkeys(map(cluster_of, jobs)))

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return _only(super().poll(jobs), jobs)

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        return ("condor_q", *jobads.question(*jobs))

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        rows = self._rows(done)
        found = {jobads.element(row): jobads.status(row) for row in rows if "DAGNodeName" in row}
        self._dags = _heads(row for row in rows if not jobads.over(row))
        wholes = {str(row["ClusterId"]): jobads.status(row) for row in rows}
        for cluster, dag in self._dags.items():
            for node, status in dag.statuses(wholes[cluster]):
                found.setdefault(f"{cluster}/{node}", status)
        return found

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        ends: dict[str, JobEnd | JobStatus] = {}
        unread = set(map(cluster_of, jobs))
        for cluster in [*unread]:
            dag = self._dags.get(cluster)
            log = jobads.read_log(f"{dag.stem}.dag.nodes.log") if dag else None
            if dag and log is not None:
                unread.discard(cluster)
                ran = (row for row in log if row["DAGNodeName"] in dag.elements)
                ends |= {f"{cluster}/{row['DAGNodeName']}": jobads.end(row) for row in ran}
            ends |= _refused(cluster, dag) if dag else {}
        return _only(ends | dict(super().account(unread, since)), jobs)

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        # The history is in the order of ends and read backwards; clocks may differ by a minute.
        until = f"EnteredCurrentStatus < {max(0, round(since) - 60)}"
        return ("condor_history", *jobads.question(*jobs), "-since", until)

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        rows = self._rows(done)
        ends = {jobads.element(row): jobads.end(row) for row in rows if "DAGNodeName" in row}
        dagmans = {str(row["ClusterId"]): row for row in rows}
        for cluster, dag in _heads(rows).items():
            ends |= _refused(cluster, dag)
            for node, begun in dag.left():
                if not begun:
                    ends.setdefault(f"{cluster}/{node}", jobads.never(dagmans[cluster]))
        return ends

    def _rows(self, done: Done) -> Sequence[jobads.Row]:
        self.answered(done)
        return jobads.rows(done)

    def cancel(self, jobs: Sequence[str]) -> None:
        if not jobs:
            return
        live = self.poll({cluster_of(job) for job in jobs})
        wanted = {one for one in live if one in jobs or job_of(one) in jobs}
        if not (parts := [*self._parts(wanted, live)]):
            return
        self.read_cancel(self._run(self.cancel_command(parts), None))
        # What DAGMan was about to submit is in the queue only now.
        again = self.poll({*map(cluster_of, wanted)})
        late = {one for one in wanted if one in again and again[one].native == "IDLE"}
        if late:
            self.read_cancel(self._run(self.cancel_command([*self._parts(late, again)]), None))

    def _parts(self, wanted: Collection[str], live: Collection[str]) -> Iterator[str]:
        """Return what constrains the queue to these elements, DAG by DAG."""
        for cluster in dict.fromkeys(map(cluster_of, wanted)):
            mine = [one.partition("/")[2] for one in wanted if cluster_of(one) == cluster]
            if all(one in wanted for one in live if cluster_of(one) == cluster):
                yield f"ClusterId == {cluster} || DAGManJobId == {cluster}"
                if self._held and self._held[0] == cluster:
                    self._held = None
                continue
            # First those that DAGMan has not submitted, lest it do so now.
            if dag := self._dags.get(cluster):
                dag.drop(mine)
            names = ", ".join(f'"{node}"' for node in mine)
            yield f"DAGManJobId == {cluster} && member(DAGNodeName, {{{names}}})"

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("condor_rm", "-constraint", " || ".join(f"({job})" for job in jobs))

    def find_command(self) -> tuple[str, ...]:
        return ("condor_q", *jobads.question())

    def read_find(self, done: Done) -> Mapping[str, str]:
        live = {job_of(element) for element in self.read_poll(done)}
        return {
            token: job
            for cluster, dag in self._dags.items()
            for token, node in dag.tokens.items()
            if (job := f"{cluster}/{node}") in live
        }

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}_{index}"


def _unused(folder: Path, stem: str) -> str:
    """Name a DAG as nothing is named yet: an earlier try of the same batch may still arrive."""
    names = chain((stem,), (f"{stem}-{nth}" for nth in count(2)))
    return next(name for name in names if not (folder / f"{name}.dag").exists())


def _heads(rows: Iterable[jobads.Row]) -> dict[str, Dag]:
    """Return the DAGs whose own jobs are among these, by cluster."""
    return {
        str(row["ClusterId"]): Dag(Path(row["Iwd"]), row["HpcpipeDag"])
        for row in rows
        if "HpcpipeDag" in row
    }


def _refused(cluster: str, dag: Dag) -> dict[str, JobEnd]:
    """Return the ends of what schedd did not take from DAGMan."""
    return {
        f"{cluster}/{node}": JobEnd(words, Reason.START) for node, words in dag.refused().items()
    }


def _only(found: Mapping[str, T], jobs: Collection[str]) -> Mapping[str, T]:
    """Leave out what was not asked about: by its cluster, as a job or as an element."""
    wanted = set(jobs)
    return {
        one: said for one, said in found.items() if wanted & {one, job_of(one), cluster_of(one)}
    }
