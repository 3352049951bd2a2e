"""The store of outcomes, as clients use it: has, get and claim, over a task's node and key.

On a node, ``hpcpipe.worker.outcome`` and ``hpcpipe.worker.claim`` do the same, and put;
``templates/store.sh.j2`` does it in ``sh``. Nobody else knows where an outcome lies. This one keeps
files on a common filesystem; another kind of store would be another module like these three.
"""

from __future__ import annotations

import os
import time
from _pickle import dumps, load
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from hpcpipe.errors import ResultError
from hpcpipe.jobs import Reason
from hpcpipe.store.plan import KEY, NodeRecord
from hpcpipe.store.recent import suggested
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker import outcome
from hpcpipe.worker.claim import ENDED, batch_of_claim, is_signed, read_claim
from hpcpipe.worker.made import Noted, noted


class Listing(NamedTuple):
    """What one look at a node's outcomes saw: keys that succeeded, failures, claimed keys."""

    succeeded: frozenset[str]
    errors: dict[str, tuple[str, ...]]  # key → the batches it failed in
    claims: frozenset[str]
    packed: Mapping[str, str] = MappingProxyType({})  # key that succeeded → where in which pack
    amiss: Mapping[str, tuple[Reason, str]] = MappingProxyType({})  # key that succeeded → what is
    # wrong with a file of it, in words
    damaged: frozenset[str] = frozenset()  # keys that succeeded, by an outcome that is damaged now
    partial: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # key → the batches in which it
    # succeeded without some of those upstream


LOOKED_AT = 1000  # outcomes that are read whenever a run is looked at: a second's work on NFS
_SMALL = 1 << 16  # bytes; of a longer outcome only the length is looked at, until it is loaded
_whole: dict[str, tuple[int, int, int]] = {}  # by path and place: the file when it was checked


class Store:
    """The outcomes of one run's tasks."""

    def __init__(self, rundir: RunDir) -> None:
        self.home = rundir.home

    def create(self, nodes: Iterable[str]) -> None:
        """Make room for the outcomes of new nodes."""
        for node in nodes:
            self.folder(node).mkdir(exist_ok=True, mode=0o700)

    def folder(self, node: str) -> Path:
        """Name the folder that has the outcomes of a node's tasks, but for those in packs."""
        return self.result(node, "").parent

    def result(self, node: str, key: str) -> Path:
        """Name the outcome of a task that succeeded."""
        return self.home / outcome.result_path(node, key)

    def error(self, node: str, key: str, batch: str) -> Path:
        """Name the outcome of a task that failed in a batch."""
        return self.home / outcome.error_path(node, key, batch)

    # --- has ----------------------------------------------------------------------------------

    def has(self, nodes: Iterable[str]) -> dict[str, Listing]:
        """Look once at the outcomes of several nodes.

        Up to `LOOKED_AT` are checked, as is whatever is loaded; of more, only names are read, and
        the outline of packs. What is in packs is in every node's listing: keys tell nodes apart.
        """
        listings = {node: self._list(node) for node in nodes}
        outcomes = self.list_packs()
        look = sum(len(one.succeeded) for one in listings.values()) + len(outcomes) <= LOOKED_AT
        packed: dict[str, str] = {}
        several: dict[str, list[str]] = {}  # of tasks that ran again, all that is in packs
        broken: set[str] = set()  # in packs
        errors: dict[str, tuple[str, ...]] = {}
        for name, key, good, at in outcomes:
            if not good:
                errors[key] = (*errors.get(key, ()), outcome.batch_of(name))
            elif look and not _is_whole(self.home / name, key, at):
                broken.add(key)
            else:
                where = f"{self.home / name}#{key}"
                if key in packed:
                    several.setdefault(key, [packed[key]]).append(where)
                packed[key] = where
        packs = Listing(frozenset(packed), errors, frozenset(), packed, damaged=frozenset(broken))
        for node, one in listings.items():
            names = one.succeeded if look else ()
            bad = {key for key in names if not _is_whole(self.result(node, key), key)}
            listings[node] = self._judged(node, one, bad, packs, several)
        return listings

    def _judged(
        self,
        node: str,
        one: Listing,
        bad: set[str],
        packs: Listing,
        several: Mapping[str, Sequence[str]],
    ) -> Listing:
        """Lay what packs hold over a node's listing, and tell what is damaged.

        What a task left outside of packs is its latest, or a copy of it.
        """
        good, packed, errors = one.succeeded - bad, packs.packed, packs.errors
        again: dict[str, str] = {}
        for key in one.damaged - good:  # marked: it counts only from a pack that is not meant
            disowned = {f"{self.home / pack}#{key}" for pack in self._disowned(node, key)}
            found = several.get(key, [packed[key]] if key in packed else [])
            if left := [where for where in found if where not in disowned]:
                again[key] = left[-1]
            else:
                bad.add(key)
        if again or not good.isdisjoint(packed):
            packed = {key: where for key, where in packed.items() if key not in good} | again
        bad |= packs.damaged - good - packed.keys()
        if not packed and not errors:
            return one._replace(succeeded=good, damaged=frozenset(bad - good))
        good = (good | packed.keys()) - bad
        all_errors = errors | one.errors
        return one._replace(
            succeeded=good, errors=all_errors, packed=packed, damaged=frozenset(bad - good)
        )

    def _disowned(self, node: str, key: str) -> list[str]:
        """Read which packs have a damaged outcome of a task."""
        mark = self.home / outcome.damaged_path(node, key)
        return mark.read_text(errors="replace").splitlines()

    def list_packs(self) -> list[tuple[str, str, bool, int]]:
        """List the outcomes in all packs: the pack, the task's key, if it succeeded, and where."""
        try:
            return [
                (name, key, good, at)
                for name in self._packs()
                for key, good, at in outcome.scan_pack(str(self.home / name))
            ]
        except outcome.Refused as error:
            raise ResultError(str(error)) from error

    def _packs(self, batch: str = "*") -> list[str]:
        """Name the packs of a batch, or all, the latest last."""
        found = self.home.glob(outcome.pack_path(batch, "*"))
        return [str(path.relative_to(self.home)) for path in sorted(found, key=_written)]

    def _list(self, node: str) -> Listing:
        """Look once at a node's outcomes, those in packs left out; reads no file."""
        good, claims, damaged = set(), set(), set()
        errors: dict[str, tuple[str, ...]] = {}
        partial: dict[str, tuple[str, ...]] = {}
        try:
            names = os.listdir(self.folder(node))
        except FileNotFoundError:
            names = []
        for name in names:
            if name[2 * KEY :] == ".pkl":  # as nearly all are
                good.add(name[: 2 * KEY])
                continue
            key, kind, batch = outcome.parse_name(name)
            if kind == "result":
                good.add(key)
            elif kind == "claim":
                claims.add(key)
            elif kind == "error":
                errors[key] = (*errors.get(key, ()), batch)
            elif kind == "damaged":
                damaged.add(key)
            elif kind == "partial":
                partial[key] = (*partial.get(key, ()), batch)
        return Listing(
            frozenset(good),
            errors,
            frozenset(claims),
            damaged=frozenset(damaged),
            partial=partial,
        )

    # --- get ----------------------------------------------------------------------------------

    def get(self, node: str, key: str, batch: str | None = None) -> Any:
        """Read the record in an outcome: of a success, or (``batch``) of a failure.

        An empty dict if it is missing or damaged.
        """
        path, at = self._find(node, key, batch)
        return _read(path, key, at, {})

    def records(
        self, node: str, keys: Iterable[str], listing: Listing
    ) -> Iterator[tuple[str, Any]]:
        """Yield the records of tasks that succeeded, by key; each pack is walked through once."""
        in_packs: dict[str, set[str]] = {}
        for key in keys:
            if where := listing.packed.get(key):
                in_packs.setdefault(where.rpartition("#")[0], set()).add(key)
            else:
                yield key, _read(self.result(node, key), key, 0, {})
        for pack, wanted in in_packs.items():
            with suppress(OSError, outcome.Refused):
                for key, good, at in outcome.scan_pack(pack):
                    if good and key in wanted:
                        yield key, _read(Path(pack), key, at, {})

    def get_partial(self, node: str, key: str, batch: str) -> Any:
        """Read the record of a task that succeeded in a batch without some of those upstream."""
        return self.get_partial_at(str(self.home / outcome.partial_path(node, key, batch)), key)

    def get_partial_at(self, path: str, key: str) -> Any:
        """Read the record in such an outcome, found by `find_partial`."""
        return _read(Path(path), key, 0, {})

    def find_partial(self, node: str, listing: Listing) -> dict[str, str]:
        """Find the latest outcome of each task that has none but such: its path, by key."""
        paths = {
            key: [self.home / outcome.partial_path(node, key, batch) for batch in batches]
            for key, batches in listing.partial.items()
            if key not in listing.succeeded
        }
        return {k: str(max(some, key=lambda one: one.stat().st_mtime)) for k, some in paths.items()}

    def get_error(self, node: str, key: str, batch: str) -> Any:
        """Read the exception that a task raised in a batch; None where it left none."""
        path, at = self._find(node, key, batch)
        return _read(path, key, at, None, skip=1)

    def written(self, node: str, key: str, batch: str) -> float:
        """Return when the outcome of a task that failed in a batch was written, at the latest."""
        try:
            return self._find(node, key, batch)[0].stat().st_mtime
        except OSError:
            return 0.0

    def _find(self, node: str, key: str, batch: str | None) -> tuple[Path, int]:
        """Find the file of an outcome, and where in it the outcome begins."""
        path = self.result(node, key) if batch is None else self.error(node, key, batch)
        if path.exists():
            return path, 0
        marked = batch is None and (self.home / outcome.damaged_path(node, key)).exists()
        disowned = self._disowned(node, key) if marked else ()
        for pack in reversed(self._packs(batch or "*")):
            for found, good, at in outcome.scan_pack(str(self.home / pack)):
                if found == key and good == (batch is None) and pack not in disowned:
                    return self.home / pack, at
        return path, 0

    def load(self, node: str, key: str, packed: Mapping[str, str]) -> Any:
        """Load the value of a task that succeeded, which ``packed`` finds if it is in a pack.

        Raises FileNotFoundError, or ResultError where it is damaged or not safe to read.
        """
        path = packed.get(key) or str(self.result(node, key))
        try:
            return outcome.load_value(path)
        except outcome.Damaged as error:
            outcome.disown(str(self.home), node, key, path)
            again = suggested(self.home.parent, "retry")
            raise ResultError(f"{error}; make it again: {again}") from error
        except outcome.Refused as error:
            raise ResultError(str(error)) from error

    def measure(
        self, node: str, key: str, packed: Mapping[str, str], select: tuple[Any, ...]
    ) -> int | None:
        """Return the length of the list that is a part of what a task returned; None if not read.

        A task that was not known to be mapped over left no length: then its value is loaded.
        """
        from hpcpipe.worker.width import length  # few runs need it

        path = packed.get(key) or str(self.result(node, key))
        try:
            with outcome.open_result(path) as file:
                record = load(file)
                if select in (widths := record.get("widths", {})):
                    return int(widths[select])
                return length(load(file), select, node)
        except outcome.Refused as error:
            raise ResultError(str(error)) from error
        except (OSError, outcome.Damaged):
            return None
        except Exception as error:
            raise ResultError(f"{node}: {getattr(error, 'words', error)}") from error

    def files(
        self, node: NodeRecord, key: str, packed: Mapping[str, str]
    ) -> dict[str, Noted | None]:
        """Return the paths that a task returned, each with what it noted of the file."""
        path = packed.get(key) or str(self.result(node.name, key))
        try:
            paths, record = outcome.load_paths(path, sh=node.sh)
        except (OSError, outcome.Damaged, outcome.Refused):
            return {}  # loading it reports the damage
        return {**dict.fromkeys(paths), **noted(record, paths)}

    def disown(self, node: str, key: str) -> None:
        """Have all outcomes of a task that succeeded no longer count, so that it runs again."""
        path = self.result(node, key)
        packs = [name for name, one, good, _ in self.list_packs() if one == key and good]
        for name in packs:
            outcome.disown(str(self.home), node, key, f"{name}#{key}")
        if packs:
            path.unlink(missing_ok=True)
        elif path.exists():
            outcome.disown(str(self.home), node, key, str(path))

    def fail(self, node: str, key: str, batch: str, **facts: str) -> None:
        """Have a task that succeeded count as failed in a batch, for what was found out later."""
        record = {**self.get(node, key), **facts}
        error = str(self.error(node, key, batch))
        outcome.write_outcome(f"{error}.part", error, key, False, record, dumps(None))
        self.result(node, key).unlink(missing_ok=True)

    def changed(self, nodes: Iterable[str]) -> float:
        """Return when the last outcome of these nodes was written, those in packs left out."""
        return max((self.folder(node).stat().st_mtime for node in nodes), default=0.0)

    def clear(self, node: str, key: str) -> None:
        """Remove the outcome of a task that is about to run again, unless it is in a pack."""
        self.result(node, key).unlink(missing_ok=True)
        for path in self.home.glob(outcome.partial_path(node, key, "*")):
            path.unlink(missing_ok=True)
        mark = self.home / outcome.damaged_path(node, key)
        if mark.exists() and not mark.read_bytes().startswith(b"packs/"):
            mark.unlink()

    # --- claim --------------------------------------------------------------------------------

    def end_claims(self, node: str, ended: Mapping[str, Collection[str]]) -> None:
        """Record in the claims of tasks that the job which holds them has ended.

        ``ended`` are the batches of which a task's jobs have ended, by key.

        Only by the scheduler's word. Who starts such a task next looks for living processes where
        it can, and takes over elsewhere. A claim of one killed while it wrote it goes at once.
        """
        names = [(name, *outcome.parse_name(name)) for name in os.listdir(self.folder(node))]
        claims = [(name, key) for name, key, kind, _ in names if kind in ("claim", "ticket")]
        for name, key in claims:
            if not ended.get(key):
                continue
            path = self.folder(node) / name
            claim = read_claim(str(path)) or ""
            if not is_signed(claim):
                path.unlink(missing_ok=True)
                continue
            if batch_of_claim(claim) not in ended[key] or claim.endswith(f"\n{ENDED}\n"):
                continue
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            except FileNotFoundError:
                continue  # it was released
            os.write(fd, f"{ENDED}\n".encode())
            os.close(fd)

    def cancel(self, batch: str, indices: Iterable[int] | None = None) -> None:
        """Keep the elements of a batch that have not begun from beginning: all, or these.

        To be called before the scheduler is: what it starts meanwhile ends with code 85.
        """
        words = ["all"] if indices is None else map(str, indices)
        path = self.home / outcome.cancelled_path(batch)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, "".join(f"{word}\n" for word in words).encode())
            os.fsync(fd)
        finally:
            os.close(fd)

    def list_cancelled(self) -> dict[str, set[int] | None]:
        """List what `cancel` was called for, by batch: array indices, or None for all of it."""
        found: dict[str, set[int] | None] = {}
        for path in self.home.glob(outcome.cancelled_path("*")):
            words = path.read_text().split()
            found[path.name] = None if "all" in words else {int(w) for w in words if w.isdigit()}
        return found


def _written(path: Path) -> tuple[float, str]:
    """Return when a file was last written to, then its name."""
    try:
        return path.stat().st_mtime, path.name
    except FileNotFoundError:
        return 0.0, path.name


def _is_whole(path: Path, key: str, at: int = 0) -> bool:
    """Return whether an outcome is what was written, as far as can be told quickly."""
    try:
        with outcome.open_trusted(str(path)) as file:
            stat = os.fstat(file.fileno())
            facts = stat.st_ino, stat.st_size, stat.st_mtime_ns
            if _whole.get(f"{path}#{at}") != facts:
                file.seek(at)
                outcome.seek_pickles(file, key, most=_SMALL)
                if time.time() - stat.st_mtime > 2:  # a change within a tick would leave no trace
                    _whole[f"{path}#{at}"] = facts
    except (outcome.Damaged, FileNotFoundError):  # not found: a link to what was purged
        return False
    except (OSError, outcome.Refused):
        pass  # loading it reports the error
    return True


def _read(path: Path, key: str, at: int, default: Any, skip: int = 0) -> Any:
    """Read a pickle of an outcome, or ``default`` where there is none or it is damaged."""
    try:
        with outcome.open_trusted(str(path)) as file:
            file.seek(at)
            outcome.seek_pickles(file, key)
            for _ in range(skip):
                load(file)
            return load(file)
    except outcome.Refused as error:
        raise ResultError(str(error)) from error
    except Exception:  # an exception of the user's may not be loadable here
        return default
