"""DRMAA: the C library of a scheduler, by the PyPI package ``drmaa``.

DRMAA 1.0 can submit a job or an array, and knows neither dependencies nor jobs of another session.
So it only submits; its site names the dialect of the scheduler behind it, in which the script has
its directives and the dependencies are handed on as native flags, and by whose adapter jobs are
asked about, released and cancelled. Tried with Debian's ``libdrmaa`` on a real Grid Engine 8.1.9,
in the tests; ``dialect = "sge"`` is the only one.

Site keys: ``[drmaa] dialect``, and ``library``, the path of ``libdrmaa.so``; all of ``[sge]``.

Oddities worth knowing:

* A process may have one session, and must not fork while it has it: each submission is a process of
  its own, ``python -m hpcpipe.schedulers.drmaa SCRIPT FLAGS``.
* Debian's library needs more room for thread-local storage than is left once Python runs
  ("cannot allocate memory in static TLS block"): that process is started with GLIBC_TUNABLES.
* Unless told otherwise (``-b n``), DRMAA runs a script where it lies and ignores its directives.
* A job whose log or folder cannot be opened is removed at once, and does not stay as Eqw.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import ConfigError, near
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus
from hpcpipe.schedulers.base import Run, run_command
from hpcpipe.schedulers.sge import Sge

DIALECTS = {"sge": Sge}
_TLS = "glibc.rtld.optional_static_tls=4096"


class Drmaa:
    """Submits through DRMAA; everything else is done by the adapter of its dialect."""

    name: ClassVar[str] = "drmaa"
    capabilities: ClassVar[Capabilities] = Sge.capabilities

    def __init__(self, dialect: str = "sge", library: str = "", run: Run = run_command) -> None:
        if dialect not in DIALECTS:
            raise ConfigError(
                f"drmaa.dialect: unknown dialect {dialect!r}{near(dialect, DIALECTS)}"
            )
        self._library = library or os.environ.get("DRMAA_LIBRARY_PATH", "")
        self._dialect = DIALECTS[dialect](run)

    def instance(self) -> str:
        return self._dialect.instance()

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        flags = self._dialect.flags(after, token=token, held=held)
        tunables = ":".join(filter(None, (os.environ.get("GLIBC_TUNABLES"), _TLS)))
        done = self._dialect.hand_over(
            (
                "env", f"GLIBC_TUNABLES={tunables}", f"DRMAA_LIBRARY_PATH={self._library}",
                sys.executable, "-P", "-m", __name__, f"{script.parent.name}/{script.name}", *flags,
            ),
            script.parent.parent,
        )  # fmt: skip
        return self._dialect.read_submit(done._replace(argv=("DRMAA",)))

    def release(self, jobs: Sequence[str]) -> None:
        self._dialect.release(jobs)

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return self._dialect.poll(jobs)

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        return self._dialect.account(jobs, since)

    def cancel(self, jobs: Sequence[str]) -> None:
        self._dialect.cancel(jobs)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        return self._dialect.find(tokens)

    def element(self, job: str, index: int | None) -> str:
        return self._dialect.element(job, index)

    def count(self) -> int | None:
        return None

    def accounts(self) -> Sequence[str]:
        return self._dialect.accounts()
