"""Which run a command is about: the one that was named, or the latest from here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from hpcpipe.errors import HpcpipeError, UsageError
from hpcpipe.store.rundir import RunDir


def _memory() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "hpcpipe", "runs")


def remember(folder: Path) -> None:
    """Record that a run was submitted from this working folder, for `find_run`."""
    line = f"{time.time():.0f}\t{os.fspath(Path.cwd())!r}\t{os.fspath(folder)!r}\n"
    try:
        _memory().parent.mkdir(parents=True, exist_ok=True)
        with _memory().open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(line)
    except OSError:
        return  # a home that cannot be written to: find_run then looks for the folder itself


def _is_closed(folder: str) -> bool:
    try:
        os.stat(os.path.join(folder, "."))
    except PermissionError:
        return True
    return False


def find_run(named: str | None, here: Path | None = None) -> Path:
    """Find the run that a command is about.

    The folder that was named; or the one we are in; or the one last submitted from here; or the
    latest in the folders right below. ``here`` is the current folder, if not that of this process.
    Raises UsageError where there is none.
    """
    here = here or Path.cwd()
    if named:
        for folder in (Path(named), Path(named).parent):
            if RunDir(folder).exists:
                return folder
        if os.path.isdir(named) and _is_closed(named):
            raise UsageError(
                f"{named}: you may not open this folder of user id {os.stat(named).st_uid}; "
                "if it is a run, only they can look at it or go on with it"
            )
        raise UsageError(
            f"{named}: nothing was submitted there; name the folder base_dir/workflow, "
            "as listed by: hpcpipe runs"
        )
    for folder in (here, *here.parents):
        if RunDir(folder).exists:
            return folder
    if (last := _last_from(here)) is not None:
        return last
    if below := _below(here):
        return below[0]
    raise UsageError(
        "nothing was submitted from this folder; name the run's folder with --run, "
        "or start one: hpcpipe submit FILE"
    )


def known_runs() -> list[Path]:
    """Return the folders of the runs that were submitted by this user or lie right below, latest
    first, as far as they still exist."""
    found = {*(folder for _, folder in _remembered()), *_below(Path.cwd())}
    return sorted(filter(_has_run, found), key=last_written, reverse=True)


def _has_run(folder: Path) -> bool:
    try:
        return RunDir(folder).exists
    except (HpcpipeError, OSError):  # another user's
        return False


def _below(here: Path) -> list[Path]:
    """Return the folders of the runs one or two levels below, latest first."""
    ledgers = [*here.glob("*/.hpcpipe/ledger.jsonl"), *here.glob("*/*/.hpcpipe/ledger.jsonl")]
    return sorted((one.parent.parent for one in ledgers), key=last_written, reverse=True)


def last_written(folder: Path) -> float:
    """Return when something was last recorded of a run, in seconds since the epoch."""
    try:
        return RunDir(folder).ledger.stat().st_mtime
    except OSError:
        return 0.0


def _remembered() -> Iterator[tuple[Path, Path]]:
    """Yield the working folder and the run's folder of each submission, latest first."""
    from ast import literal_eval

    try:
        lines = _memory().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in reversed(lines):
        try:  # a line may be torn: several hosts write here at a time
            _, cwd, folder = line.split("\t")
            yield Path(literal_eval(cwd)), Path(literal_eval(folder))
        except (SyntaxError, TypeError, ValueError):
            continue


def _last_from(here: Path) -> Path | None:
    found = (folder for cwd, folder in _remembered() if cwd == here and RunDir(folder).exists)
    return next(found, None)


_left: dict[Path, Path] = {}  # folders that a command has changed to, and from which


def change_to(folder: str) -> None:
    """Change the current folder; commands are suggested as for the one where the shell still is."""
    here = Path.cwd()
    os.chdir(folder)
    _left[Path.cwd()] = here


def suggested(folder: Path | None, *words: str) -> str:
    """Return a command about a run, as it can be typed in this folder."""
    return f"hpcpipe {' '.join(filter(None, words))}{run_option(folder) if folder else ''}"


def run_option(folder: Path) -> str:
    """Return the option that a suggested command needs for this run; empty if it needs none."""
    try:
        here = Path.cwd()
        if find_run(None, _left.get(here, here)).resolve() == folder.resolve():
            return ""
    except (OSError, UsageError):
        pass
    import shlex  # not for each `hpcpipe status`

    return f" --run {shlex.quote(os.fspath(folder))}"
