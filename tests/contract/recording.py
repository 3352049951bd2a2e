"""What the contract tests found, for the pages: by scheduler, on what it was tried and how it went.

A record is JSON. It names each scheduler, and of it ``on``, what it says of itself; ``real``,
whether that is the scheduler itself or a stand-in; ``as_of``, the day; and ``tests``, by module of
tests how many passed and failed. What a run does not try stays as it was recorded, unless the
scheduler is another version by now; a stand-in does not take the place of a real one.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contract.dialects import DIALECTS, Dialect


class Recording:
    """The plugin of ``--record-contract``: notes each test of a scheduler, writes at the end."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        # Else a part of a module would be taken for all of it.
        if config.option.keyword or any("::" in word for word in config.args):
            raise pytest.UsageError("--record-contract counts whole modules: no -k, no ::")
        self._file = file
        self._of: dict[str, tuple[str, str]] = {}  # by test: scheduler, module
        self._went: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Find the tests of schedulers."""
        for item in items:
            called = item.callspec.params.values() if hasattr(item, "callspec") else ()
            dialect = next((one for one in called if isinstance(one, Dialect)), None)
            if dialect and item.path.parent == Path(__file__).parent:
                self._of[item.nodeid] = dialect.name, item.path.stem

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how one went; an error before or after it counts as a failure."""
        if report.failed:
            self._went[report.nodeid] = "failed"
        elif report.passed and report.when == "call":
            self._went.setdefault(report.nodeid, "passed")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write all that was tried into the record, if it was tried to the end."""
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        counts: dict[str, dict[str, Counter[str]]] = {}
        for test, (scheduler, module) in self._of.items():
            if went := self._went.get(test):
                counts.setdefault(scheduler, {}).setdefault(module, Counter())[went] += 1
        record = json.loads(self._file.read_text("utf-8")) if self._file.exists() else {}
        tried = {one.name: _merged(one, record, counts) for one in DIALECTS}
        told = {name: entry for name, entry in tried.items() if entry}
        self._file.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def _merged(dialect: Dialect, record: Any, counts: dict[str, dict[str, Counter[str]]]) -> Any:
    """Give what is known of a scheduler after this run."""
    before, now = record.get(dialect.name, {}), counts.get(dialect.name)
    if not now or dialect.missing():  # some tests are of its absence
        return before
    if before.get("real") and not dialect.real:
        return before
    tests = {
        module: {"passed": count["passed"], "failed": count["failed"]}
        for module, count in now.items()
    }
    on = dialect.on()
    if before.get("on") == on:  # else what passed, passed on another version
        tests = before["tests"] | tests
    return {
        "on": on,
        "real": dialect.real,
        "as_of": datetime.now(UTC).date().isoformat(),
        "tests": dict(sorted(tests.items())),
    }
