"""A frozen plan: what it holds, what a retry makes of it, and what is left where it is damaged."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import CANCELLED, Lab
from hypothesis import given
from hypothesis import strategies as st

from hpcpipe import Executor, each
from hpcpipe.cli import hpcpipe
from hpcpipe.cli.sending import plan
from hpcpipe.cli.sending import retry as again_by_hand
from hpcpipe.errors import ResultError, UsageError
from hpcpipe.frontends.load import load_source
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.keys.digest import Digests
from hpcpipe.keys.file_digest import Files, combine, make_again, recipe
from hpcpipe.keys.pickling import Own
from hpcpipe.keys.plan import freeze
from hpcpipe.resources import Resources
from hpcpipe.run import Run, retry, submit
from hpcpipe.site.load import Loaded
from hpcpipe.status.left_out import find_left_out
from hpcpipe.status.report import make_report
from hpcpipe.store.plan import NewPayloads, StoredPayloads, read_plan, write_plan
from hpcpipe.submit.options import Options
from hpcpipe.views.status import status_lines
from hpcpipe.views.watch import screen

OUT_OF_MEMORY = JobEnd("OUT_OF_MEMORY", Reason.MEMORY)


@pytest.fixture(autouse=True)
def _forget_files(tmp_path: Path) -> Iterator[None]:
    """Forget the workflow files that a test has read: other tests have some of the same name."""
    yield
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def read(source: Path) -> str:
    return source.read_text()


def doubled(text: str) -> str:
    return 2 * text


def refuse_nothing(go: str, subject: str) -> str:
    if subject == "b" and not os.path.exists(go):
        raise ValueError("not yet")
    return subject


def add(x: int, y: int) -> int:
    return x + y


def again(lab: Lab, **options: Any) -> None:
    retry(lab.rundir.folder, Options(**options), site=lab.site)


def asked(lab: Lab) -> list[Resources]:
    return [batch.resources for batch in Run(lab.rundir.folder).record.batches.values()]


def end_all(lab: Lab, end: JobEnd = CANCELLED) -> None:
    """Have the scheduler end every element."""
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, end)


# --- what a plan holds ----------------------------------------------------------------------------


def test_a_plan_is_read_as_it_was_written_and_runs_of_it_share_its_files(lab: Lab) -> None:
    first = lab.workflow.command("cp {x} {output}", x=each(["a", "b"]), outputs="made", name="make")
    lab.workflow.add(doubled, text=first.gather())
    plan = freeze(lab.workflow)
    lab.rundir.create()
    digest = write_plan(lab.rundir, plan)
    files = {path: path.stat().st_ino for path in lab.rundir.plans.iterdir()}
    found = read_plan(lab.rundir, digest)
    assert write_plan(lab.rundir, found) == write_plan(lab.rundir, freeze(lab.workflow)) == digest
    assert {path: path.stat().st_ino for path in lab.rundir.plans.iterdir()} == files
    assert len(files) == 1 + len(plan.nodes)
    for name, node in plan.nodes.items():
        rows = range(1 + len(node))
        [made], [stored] = node.payloads, found.nodes[name].payloads
        assert isinstance(made, NewPayloads)
        assert isinstance(stored, StoredPayloads)
        assert [*made.read(rows)] == [*stored.read(rows)]
        assert {**vars(node), "payloads": ()} == {**vars(found.nodes[name]), "payloads": ()}


VALUES = st.recursive(
    st.sampled_from([Path("one"), Path("two"), Path("none"), 1, "text"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner) | st.tuples(inner),
)


@given(VALUES)
def test_a_digest_is_made_again_of_what_files_hold_now(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    os.chdir(tmp_path_factory.getbasetemp())

    def digest() -> bytes:
        return b"label" + combine(b"node", Digests(Files(), Own()).digest(value))

    for name in ("one", "two"):
        Path(name).write_text("before")
    before = digest()
    Path("one").write_text("after")
    assert make_again(recipe(before), Files()) == digest()
    Path("one").unlink()  # what is gone counts as it was
    assert make_again(recipe(before), Files()) == before


# --- what a retry runs ----------------------------------------------------------------------------


def test_a_task_whose_input_was_mended_gets_the_key_that_a_new_plan_gives_it(
    lab: Lab, tmp_path: Path
) -> None:
    sources = [tmp_path / name for name in ("bad", "good")]
    for source in sources:
        source.write_text("text")
    lab.workflow.add(doubled, text=lab.workflow.add(read, source=each(sources)))
    lab.submit()
    before = Run(lab.rundir.folder).record.nodes
    end_all(lab)
    sources[0].write_text("mended")
    again(lab)
    after = Run(lab.rundir.folder).record.nodes
    fresh = freeze(lab.workflow).nodes
    assert all(after[name].keys == fresh[name].keys for name in fresh)
    assert all(after[name].key(1) == before[name].key(1) for name in fresh)
    assert all(after[name].key(0) != before[name].key(0) for name in fresh)
    assert lab.run("read/bad").status == lab.run("doubled/bad").status == 0
    assert lab.value("doubled/bad") == "mendedmended"
    sources[0].unlink()  # so what has succeeded is still that
    again(lab)
    assert Run(lab.rundir.folder).record.nodes["read"].keys == after["read"].keys


def test_options_of_the_submission_are_kept_and_raised_above(lab: Lab) -> None:
    lab.workflow.command("true", name="one")
    options = Resources(memory=100, time=600)
    submit(lab.workflow, site=lab.site, resources=options)
    end_all(lab, OUT_OF_MEMORY)
    again(lab)
    assert asked(lab) == [Resources(memory=200, time=600)]
    end_all(lab, OUT_OF_MEMORY)
    again(lab, resources=Resources(time=60))
    assert asked(lab) == [Resources(memory=400, time=60)]
    end_all(lab)
    again(lab)
    assert [one.time for one in asked(lab)] == [60]


def test_calls_of_an_executor_are_made_again_from_the_plan(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Executor("calls", base_dir=tmp_path, site=lab.site, gather=600)
    executor.submit(add, 1, 2)
    executor.flush()
    executor.submit(add, 3, y=4)
    executor.flush()
    end_all(lab, OUT_OF_MEMORY)
    executor.shutdown()
    folder = tmp_path / "calls"
    monkeypatch.chdir("/")
    _, draft = retry(folder, site=lab.site)
    assert sum(len(one.batch.tasks) for one in draft.prepared) == 2
    lab.rundir = executor.run.rundir
    names = executor.run.record.names()
    assert all(lab.run(name).status == 0 for name in names)
    assert {executor.run.result(name) for name in names} == {3, 7}


def test_a_file_is_loaded_again_with_the_arguments_it_had(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "flow.py"
    file.write_text(
        "import sys\nfrom hpcpipe import Workflow, each\nwf = Workflow('lab')\n"
        "wf.command('echo {x}', x=each(sys.argv[1:]))\n"
    )
    source = {"file": str(file), "arguments": ["S1", "S2"]}
    monkeypatch.chdir(file.parent)
    lab.workflow.command("true")
    run = submit(lab.workflow, site=lab.site, source=source)
    monkeypatch.chdir("/")
    assert load_source(run.record).nodes["echo"].axes[0].labels == ("S1", "S2")


def test_the_plan_that_is_shown_is_of_a_file_with_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flow.py").write_text(
        "import sys\nfrom hpcpipe import Workflow, each\nwf = Workflow('lab')\n"
        "wf.command('echo {x}', x=each(sys.argv[1:]))\n"
    )
    shown = CliRunner().invoke(plan, ["--json", "--site", "local", "flow.py", "S1", "S2"])
    assert json.loads(shown.output)["tasks"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--site", "local", "--reload"],
            "/gone.py: the file of this run is gone; .*--reload FILE",
        ),
        ([], "/gone.toml: the site file of this run is gone; add --site NAME"),
    ],
)
def test_a_retry_names_what_is_gone_and_what_to_add(lab: Lab, words: list[str], said: str) -> None:
    lab.workflow.command("true")
    site = Loaded(lab.site, Path("/gone.toml"), (), "why")
    submit(lab.workflow, site=site, source={"file": "/gone.py"})
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(
            again_by_hand, ["--run", str(lab.rundir.folder), *words], catch_exceptions=False
        )


def test_a_suggested_command_names_a_run_that_is_not_found_from_here(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.workflow.command("true", name="work")
    lab.submit()
    monkeypatch.chdir("/")
    folder = str(lab.rundir.folder)
    with pytest.raises(ResultError, match=f"see hpcpipe status --run {folder}$"):
        CliRunner().invoke(hpcpipe, ["results", "work", "--run", folder], catch_exceptions=False)
    with pytest.raises(ResultError, match=f"see hpcpipe explain work --run {folder}$"):
        Run(folder).result("work")


@pytest.mark.parametrize("command", ["submit", "run", "plan", "retry", "map"])
def test_every_command_that_plans_takes_a_number_of_calls(command: str) -> None:
    assert "--calls N" in CliRunner().invoke(hpcpipe, [command, "--help"]).output


# --- a folder that was renamed --------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [None, "made"], ids=["", "files in the old folder"])
def test_a_run_whose_folder_was_renamed_goes_on_or_says_what_to_do(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: str | None
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    monkeypatch.chdir(old)
    lab.workflow.base_dir = old / "work"
    lab.workflow.command("touch {output}" if outputs else "true", outputs=outputs, name="one")
    lab.submit()
    end_all(lab)
    new = old.rename(old.parent / "new")
    monkeypatch.chdir(new)
    run = new / "work" / "lab"
    assert make_report(Run(run).rundir).total.total() == 1
    if outputs:
        with pytest.raises(UsageError, match=f"was moved from {old}/work/lab.*--reload FILE"):
            retry(run, site=lab.site)
        return
    retry(run, site=lab.site)
    assert Run(run).record.cwd == str(new)
    shutil.rmtree(run)


def test_a_folder_that_tasks_start_in_and_that_is_gone_is_named(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    lab.workflow.command("true")
    lab.submit()
    end_all(lab)
    gone.rmdir()
    monkeypatch.chdir("/")
    with pytest.raises(
        UsageError, match=f"{gone}: the tasks of this run start in this folder, which is gone"
    ):
        again(lab)


# --- what is damaged ------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [flip, Path.unlink])
@pytest.mark.parametrize("run", [1, 2])
def test_a_lost_record_stops_no_other_run(lab: Lab, harm: Callable[[Path], None], run: int) -> None:
    lab.workflow.command("true", name="one")
    lab.submit()
    end_all(lab)
    lab.workflow.command("true", name="two")
    lab.submit()
    end_all(lab)
    harm(lab.rundir.record(run))
    assert make_report(lab.rundir).total.total() == (2 if run == 1 else 1)
    assert Run(lab.rundir.folder).cancel() == 0
    lab.submit()
    assert make_report(lab.rundir).total.total() == 2


def enlarge(path: Path) -> None:
    """Damage a size near its beginning, to more than any memory holds."""
    content = bytearray(path.read_bytes())
    content[24] |= 0x88
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [flip, enlarge, Path.unlink])
@pytest.mark.parametrize("suffix", ["plan", "tasks"])
def test_a_damaged_plan_stops_a_retry_with_a_remedy_and_nothing_else(
    lab: Lab, harm: Callable[[Path], None], suffix: str
) -> None:
    lab.workflow.add(refuse_nothing, go="/", subject=each(["a", "b"]))
    lab.submit()
    assert lab.run("refuse_nothing/a").status == 0
    for path in lab.rundir.plans.glob(f"*.{suffix}"):
        harm(path)
    assert make_report(lab.rundir).total == {State.DONE: 1, State.QUEUED: 1}
    assert Run(lab.rundir.folder).cancel() == len(lab.scheduler.says)
    with pytest.raises(ResultError, match=r": cd /\S+ && hpcpipe submit /\S+/fakes\.py"):
        again(lab)
    lab.submit()
    assert lab.run("refuse_nothing/b").status == 0


# --- what is planned no more ----------------------------------------------------------------------


def test_what_failed_and_is_planned_no_more_is_never_passed_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for subjects in (["a", "b", "c"], ["a"]):
        lab.workflow.nodes.clear()
        lab.workflow.add(refuse_nothing, go="/no such", subject=each(subjects))
        lab.submit()
        lab.run("refuse_nothing/a")
        end_all(lab)
    left_out = find_left_out(lab.rundir)
    assert left_out == ["refuse_nothing/b", "refuse_nothing/c"]
    report = make_report(lab.rundir)
    assert report.total == {State.DONE: 1}
    lines = [*status_lines(report, left_out)]
    assert "2 of an earlier plan had failed" in lines[0]
    assert any(line.endswith("refuse_nothing/b refuse_nothing/c") for line in lines)
    monkeypatch.chdir(lab.rundir.folder)
    outputs = [CliRunner().invoke(hpcpipe, words).output for words in ([], ["watch"])]
    for shown in (*outputs, "\n".join(screen(report))):
        assert "2 of an earlier plan had failed" in shown
