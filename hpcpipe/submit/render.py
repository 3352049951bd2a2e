"""Batches become scripts: Jinja2 templates, ``base → scheduler → site``.

Only what is known at plan time is in a script; job ids are on the command line. Whatever a user
may have written reaches a script quoted, or is refused here.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from hpcpipe import __version__
from hpcpipe.errors import ConfigError
from hpcpipe.indices import fold
from hpcpipe.planner.batch import Batch
from hpcpipe.schedulers import find_adapter
from hpcpipe.site import Site
from hpcpipe.site.route import Route
from hpcpipe.store.rundir import CUT, tasks_path
from hpcpipe.submit.checkpoint import Checkpoint
from hpcpipe.submit.inherited import Inherited
from hpcpipe.submit.mail import Mail
from hpcpipe.submit.setup import checked
from hpcpipe.submit.sums import Sums
from hpcpipe.submit.waking import NOTHING, Waking
from hpcpipe.worker import outcome
from hpcpipe.worker.claim import ENDED
from hpcpipe.worker.made import LONG

_CODES = {
    "cancelled": outcome.CANCELLED,
    "upstream_failed": outcome.UPSTREAM_FAILED,
    "claimed": outcome.CLAIMED,
    "no_environment": outcome.NO_ENVIRONMENT,
    "over_memory": outcome.OVER_MEMORY,
    "not_started": outcome.NOT_STARTED,
    "no_log": outcome.NO_LOG,
    "untrusted": outcome.UNTRUSTED,
    "no_space": outcome.NO_SPACE,
    "checkpointed": outcome.CHECKPOINTED,
}
# Where a library of threads looks for how many it may start; all but OMP's own fall back on that.
_THREADS = (
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS GOTO_NUM_THREADS BLIS_NUM_THREADS "
    "NUMEXPR_NUM_THREADS VECLIB_MAXIMUM_THREADS ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
)


@dataclass(frozen=True)
class Job:
    """What a template knows of a batch: final values, nothing left to work out.

    ``memory`` in MiB, ``time`` in seconds; ``array`` is empty for a plain job; ``listed`` holds
    the indices, where they are not ``first``, ``first + 1``, …; ``throttle`` is how many elements
    may run at a time, ``lanes`` how many strands of one do, of ``strand`` tasks with ``gpus_each``.
    ``threads`` is how many a task has cpus for: one if it asks for none, and None where it gets a
    whole machine to itself. ``constraints``, ``licences`` and ``gpu_model`` are in the scheduler's
    words. ``watched``: the script itself keeps the limit of memory. ``place`` is how many batches
    of the submission come before this one. ``inherited`` is the file of the submitter's variables;
    ``sums`` are the files that a job reads, each with its checksums. ``continues`` are the words
    that a continuation gets, and empty for tasks. ``excluded`` are nodes that it must not run on.
    ``mail``: it runs no tasks, and the scheduler sends mail when it has ended.
    """

    id: str
    place: int
    name: str
    nodes: str
    workflow: str
    count: int
    starts: str
    lanes: int
    strand: int
    array: str
    first: int
    listed: str
    python: bool
    executable: str
    tasks: str
    inherited: str
    sums: tuple[tuple[str, Sums], ...]
    cwd: str
    settle: int
    queue: str | None
    account: str | None
    cpus: int | None
    threads: int | None
    memory: int | None
    watched: bool
    time: int | None
    gpus: int | None
    gpus_each: int
    gpu_model: str
    throttle: int | None
    constraints: tuple[str, ...]
    licences: tuple[str, ...]
    software: str
    setup: tuple[str, ...]
    options: tuple[str, ...]
    waking: Waking = NOTHING
    excluded: tuple[str, ...] = ()
    continues: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    mail: Mail | None = None


def make_continuation(
    batch_id: str,
    words: tuple[str, ...],
    route: Route,
    site: Site,
    workflow: str,
    executable: str,
    inherited: Inherited | None,
) -> Job:
    """Return what a template needs to know of a continuation; see `hpcpipe.submit.continuation`."""
    batch = Batch((), (), None, route.resources, ())
    job = make_job(
        batch, batch_id, route, site, workflow, "", executable=executable, inherited=inherited
    )
    return replace(job, name=f"continue.{workflow}", continues=words)


def make_mail(batch_id: str, name: str, mail: Mail, route: Route, site: Site, workflow: str) -> Job:
    """Return what a template needs to know of the job at whose end the scheduler sends mail."""
    batch = Batch((), (), None, route.resources, ())
    job = make_job(batch, batch_id, route, site, workflow, "")
    return replace(job, name=name, mail=mail)


def make_job(
    batch: Batch,
    batch_id: str,
    route: Route,
    site: Site,
    workflow: str,
    cwd: str,
    place: int = 0,
    executable: str = sys.executable,
    *,
    sums: Sums | None = None,
    inherited: Inherited | None = None,
) -> Job:
    """Return all that a template needs to know of a batch; ``sums`` are its task file's."""
    indices, queue, asked = batch.indices or (), route.queue, route.resources
    each = asked.share(batch.lanes, batch.turns)
    whole = batch.lanes == 1 and queue is not None and queue.exclusive
    return Job(
        id=batch_id,
        place=place,
        name=f"{batch.name}.{workflow}" if batch.nodes else workflow,
        nodes=" ".join(node.node.name for node in batch.nodes),
        workflow=workflow,
        count=len(batch.tasks),
        starts="" if batch.starts is None else " ".join(map(str, batch.starts)),
        lanes=batch.lanes,
        strand=batch.strand,
        array=fold(indices),
        first=indices[0] if indices else 0,
        listed=" ".join(map(str, indices)) if "," in fold(indices) else "",
        python=not (batch.nodes and batch.nodes[0].node.sh),
        executable=executable,
        tasks=tasks_path(batch_id),
        inherited=inherited.path if inherited else "",
        sums=tuple(_sums(batch_id, sums, inherited)),
        cwd=cwd,
        settle=site.limits.settle_seconds,
        queue=(queue.spelled or queue.name) if queue and queue.named else None,
        account=route.account,
        cpus=asked.cpus,
        threads=each.cpus or (None if whole else 1),
        memory=asked.memory,
        watched=site.limits.watch_memory and asked.memory is not None,
        time=asked.time,
        gpus=asked.gpus,
        gpus_each=each.gpus or 0,
        gpu_model=route.gpu_model,
        throttle=route.throttle if batch.indices is not None else None,
        constraints=route.constraints,
        licences=route.licences,
        software=", ".join(route.software),
        setup=route.setup,
        options=(*getattr(site.own, "options", ()), *route.options),
    )


def _sums(batch: str, sums: Sums | None, inherited: Inherited | None) -> Iterator[tuple[str, Sums]]:
    if sums:
        yield tasks_path(batch), sums
    if inherited:
        yield inherited.path, inherited.sums


def render(job: Job, site: Site) -> str:
    """Render a batch's script; raises ConfigError naming the template and what it lacks."""
    name = f"{site.written_for}.sh.j2"
    for option in job.options:
        if "\n" in option:
            raise ConfigError(f"option {option!r}: a directive is one line")
    try:
        template = _environment(
            site.templates, find_adapter(site.written_for).package
        ).get_template(name)
        script = template.render(
            batch=job,
            environment=site.environment,
            scratch=site.scratch,
            options=site.own,
            codes=_CODES,
            ended=ENDED,
            threads=_THREADS,
            owner=outcome.OWNER,
            long=LONG,
            cancelled=outcome.cancelled_path(job.id),
            log_size=(site.limits.log_size or 0) << 20,  # in bytes
            cut=CUT,
            version=__version__,
        )
        return _without(site.refused, script)
    except jinja2.TemplateError as error:
        where = getattr(error, "filename", None) or name
        line = getattr(error, "lineno", None)
        raise ConfigError(f"{where}{f':{line}' if line else ''}: {error}") from error


def _without(refused: Sequence[str], script: str) -> str:
    """Leave out the directives that hold an option which the site refuses."""
    if not refused:
        return script
    directive = re.compile(rf"#\S+ +(?:{'|'.join(map(re.escape, refused))})(?:[ =]|$)")
    head, mark, body = script.partition("\n# hpcpipe ")
    kept = [line for line in head.split("\n") if not directive.match(line)]
    return "\n".join(kept) + mark + body


@cache
def _environment(overrides: Path | None, adapter: str) -> jinja2.Environment:
    shipped = jinja2.PackageLoader("hpcpipe.templates", "")
    loaders: list[jinja2.BaseLoader] = [shipped, jinja2.PrefixLoader({"hpcpipe": shipped})]
    loaders.append(jinja2.PackageLoader(adapter, ""))  # one from outside has its own there
    if overrides is not None:
        loaders.insert(0, jinja2.FileSystemLoader(overrides))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # sh, not HTML: quoting is the filter's
    )
    environment.filters.update(quote=_quote, hms=_hms, checked=checked)
    return environment


def _quote(value: Any) -> str:
    return shlex.quote(str(value))


def _hms(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
