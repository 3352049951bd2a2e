"""DRMAA: the C library of a scheduler, by the PyPI package ``drmaa``.

DRMAA 1.0 can submit a job or an array, and knows neither dependencies nor jobs of another session.
So it only submits; its site names the dialect of the scheduler behind it, in which the script's
directives and the dependencies are handed on as native flags, and by whose adapter jobs are asked
about, released and cancelled. Tried with Debian's ``libdrmaa`` on a real Grid Engine 8.1.9, in the
tests; ``dialect = "sge"`` is the only one.

Site keys: ``[drmaa] dialect``, and ``library``, the path of ``libdrmaa.so``; all of ``[sge]``.

Oddities worth knowing:

* A process may have one session, and must not fork while it has it: each submission is a process of
  its own, ``python -m hpcpipe.schedulers.drmaa SCRIPT FLAGS``.
* Debian's library needs more room for thread-local storage than is left once Python runs
  ("cannot allocate memory in static TLS block"): that process is started with GLIBC_TUNABLES.
* The script is run where it lies: it must be executable, and stay as it is until then.
* A job whose log or folder cannot be opened is removed at once, and does not stay as Eqw.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import ConfigError, SchedulerError, near
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus
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
            raise ConfigError(f"drmaa.dialect: {dialect!r} is none{near(dialect, DIALECTS)}")
        self._library = library or os.environ.get("DRMAA_LIBRARY_PATH", "")
        self._run = run
        self._dialect = DIALECTS[dialect](run)

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        flags = self._dialect.flags(after, token=token, held=held)
        tunables = ":".join(filter(None, (os.environ.get("GLIBC_TUNABLES"), _TLS)))
        done = self._run(
            (
                "env", f"GLIBC_TUNABLES={tunables}", f"DRMAA_LIBRARY_PATH={self._library}",
                sys.executable, "-P", "-m", __name__, f"{script.parent.name}/{script.name}", *flags,
            ),
            script.parent.parent,
        )  # fmt: skip
        self._dialect.refuse(done)
        match = re.fullmatch(r"(\d+)\n", done.stdout)
        if match is None:
            raise SchedulerError(f"{done.words}\n(DRMAA gave no job id)")
        return match[1]

    def release(self, jobs: Sequence[str]) -> None:
        self._dialect.release(jobs)

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return self._dialect.poll(jobs)

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:
        return self._dialect.account(jobs, since)

    def cancel(self, jobs: Sequence[str]) -> None:
        self._dialect.cancel(jobs)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        return self._dialect.find(tokens)

    def element(self, job: str, index: int | None) -> str:
        return self._dialect.element(job, index)

    def accounts(self) -> Sequence[str]:
        return self._dialect.accounts()


# --- in a process of its own ----------------------------------------------------------------------


def native(script: str, flags: Sequence[str]) -> tuple[str, range]:
    """Give the flags and a script's directives as one line, and the indices of its array.

    DRMAA does not read a script, and takes the indices and the folder by other ways.
    """
    lines = re.findall(r"^#\$ (.*)$", script, re.M)
    array = next(
        (match for line in lines if (match := re.fullmatch(r"-t (\d+)-(\d+)", line))), None
    )
    indices = range(int(array[1]), int(array[2]) + 1) if array else range(0)
    kept = [line for line in lines if line != "-cwd" and not line.startswith("-t ")]
    quoted = [f'"{flag}"' if " " in flag else flag for flag in flags]
    return " ".join(["-shell n", *kept, *quoted]), indices


def main() -> None:
    """Submit the script that is named first, with the flags that follow, and print the id."""
    path, *flags = sys.argv[1:]
    try:
        import drmaa
    except ImportError:
        sys.exit("No module named 'drmaa'. Type: pip install 'hpcpipe[drmaa]'")
    except (OSError, RuntimeError) as error:  # of the library
        sys.exit(f"{error}\nThe site's [drmaa] library, or $DRMAA_LIBRARY_PATH, says where it is.")
    line, indices = native(Path(path).read_text("utf-8", "surrogateescape"), flags)
    try:
        with drmaa.Session() as session:
            template = session.createJobTemplate()
            template.remoteCommand = os.path.abspath(path)
            template.workingDirectory = os.getcwd()
            template.nativeSpecification = line
            if indices:
                jobs = session.runBulkJobs(template, indices[0], indices[-1], 1)
                print(jobs[0].partition(".")[0])
            else:
                print(session.runJob(template))
    except Exception as error:  # not all of them are DrmaaExceptions
        sys.exit(re.sub(r"^code \d+: ", "", str(error)))


if __name__ == "__main__":
    main()
