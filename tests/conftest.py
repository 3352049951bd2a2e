"""Fixtures that many tests share: the schedulers to try, a fake one, golden files."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from contract.dialects import DIALECTS, LOCAL, PBS, SLURM, TSP, Dialect
from contract.harness import Bench, Cluster, tried
from contract.recording import Recording
from fakes import FakeScheduler, Lab

# All is tried on the real ones, and on the stand-in for PBS, the most used of those that cannot be
# had; on the other stand-ins the law, the gate, and which element is which. DRMAA submits to the
# Grid Engine that all is tried on, and the engines of ipyparallel are no cluster's: on them also
# what a user types and how it fails. With HPCPIPE_TEST_ALL=1 all is tried on all, killed at every
# step, which takes more than an hour on two cores.
EVERYWHERE = ("test_law", "test_gate", "test_which")
TYPED = (*EVERYWHERE, "test_failures", "test_names", "test_promises")
# What takes long and asks little of a scheduler is tried on few, also of the real ones.
FEW = {
    "test_continuation": ("local", "slurm", "sge", "htcondor"),
    "test_checkpoint": ("local", "slurm", "sge"),
    "test_notify": ("local", "slurm", "sge"),
    **dict.fromkeys(("test_after_run", "test_logs"), ("local", "slurm")),
    **dict.fromkeys(("test_partial", "test_width"), ("local", "slurm")),
}

GOLDEN = Path(__file__).parent / "golden"
Golden = Callable[[str, str], None]


def pytest_configure(config: pytest.Config) -> None:
    for dialect in DIALECTS:
        if dialect.param.marks:
            line = f"{dialect.name}: needs a real one (tests/clusters)"
            config.addinivalue_line("markers", line)
    if file := config.getoption("--record-contract"):
        config.pluginmanager.register(Recording(config, Path(file)), "recording")
    config.addinivalue_line("markers", "can(*names): only for schedulers that can all of this")


def pytest_collection_finish() -> None:
    """Keep what is imported and collected by now out of every garbage collection."""
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a cluster on each scheduler that can do what it is about."""
    if "cluster" not in metafunc.fixturenames:
        return
    needed = [name for mark in metafunc.definition.iter_markers("can") for name in mark.args]
    able = [one for one in DIALECTS if all(map(one.can, needed))]
    module = metafunc.module.__name__.removeprefix("contract.")
    chosen = [one.param for one in able if tries(one, module)]
    metafunc.parametrize("cluster", chosen, indirect=True)


def tries(dialect: Dialect, module: str) -> bool:
    """Return whether the tests of a module are run on a scheduler each time."""
    if dialect is TSP:  # an example
        return module in EVERYWHERE
    if os.environ.get("HPCPIPE_TEST_ALL"):
        return True
    if dialect.name not in FEW.get(module, (dialect.name,)):
        return False
    if dialect.name in ("drmaa", "ipyparallel"):
        return module in TYPED
    return dialect.real or dialect is PBS or module in EVERYWHERE


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Each scheduler in turn, with a user's folder and environment."""
    with tried(request.param, tmp_path) as cluster:
        yield cluster


@pytest.fixture(params=[LOCAL.param, SLURM.param])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Local processes and a real Slurm in turn, where it does not matter which scheduler it is."""
    with tried(request.param, tmp_path) as cluster:
        yield cluster


@pytest.fixture
def slurm(tmp_path: Path) -> Cluster:
    """A real Slurm, with a user's folder and environment."""
    SLURM.need()
    return Cluster(SLURM, tmp_path)


@pytest.fixture
def bench(cluster: Cluster) -> Bench:
    """Each scheduler's adapter in turn, with a run folder."""
    return Bench(cluster, cluster.home / "run")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give all tests that are skipped for want of a scheduler one place, so that one line tells of
    them."""
    report = yield
    for dialect in DIALECTS:
        if item.get_closest_marker(dialect.name) and isinstance(report.longrepr, tuple):
            report.longrepr = ("tests/clusters", 1, report.longrepr[2])
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write the golden files anew.")
    parser.addoption("--record-contract", metavar="FILE", help="Write down how each scheduler did.")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Hold a text against a file below ``tests/golden``, which must be there."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.is_file(), f"{file} is missing: pytest --update-golden makes it, then read it"
        assert text == file.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> FakeScheduler:
    """A scheduler in memory, in the local one's place."""
    fake = FakeScheduler()
    monkeypatch.setattr("hpcpipe.schedulers.local.Local", lambda **_: fake)
    return fake


@pytest.fixture
def lab(tmp_path: Path, scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A workflow to be filled, in an empty folder that is also the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Lab(tmp_path / "runs", scheduler)
