"""The pages' matrix of schedulers: from the adapters, and from a record of the contract tests."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from contract import recording
from contract.dialects import FLUX, LOCAL, PBS

from hpcpipe.schedulers import REGISTRY

MATRIX = Path(__file__).parent.parent / "docs" / "matrix.py"


def _load() -> Any:
    spec = spec_from_file_location("matrix", MATRIX)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = _load()
RECORD = json.loads(matrix.RECORD.read_text("utf-8"))


def test_both_tables_have_a_row_for_each_scheduler() -> None:
    able, tried = list(matrix.able()), list(matrix.tried())
    titles = [row[0] for row in able]
    assert len(set(titles)) == len(REGISTRY)
    assert titles == [row[0] for row in tried]
    assert {len(row) for row in able} == {len(matrix.ABLE)}
    assert {len(row) for row in tried} == {len(matrix.TRIED)}


@pytest.mark.parametrize("scheduler", REGISTRY)
def test_what_is_recorded_of_a_scheduler_has_the_law_and_the_gate_and_no_failure(
    scheduler: str,
) -> None:
    tests = RECORD[scheduler]["tests"]
    assert {"test_law", "test_gate"} <= tests.keys()
    assert all(went["passed"] and not went["failed"] for went in tests.values())


def _item(dialect: object, name: str) -> Any:
    path = Path(recording.__file__).with_name("test_law.py")
    return SimpleNamespace(
        nodeid=name, path=path, callspec=SimpleNamespace(params={"cluster": dialect})
    )


def _report(name: str, when: str, outcome: str) -> Any:
    flags = {word: word == outcome for word in ("passed", "failed", "skipped")}
    return SimpleNamespace(nodeid=name, when=when, **flags)


def test_a_record_keeps_what_was_not_tried_and_counts_what_was(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    gate = {"test_gate": {"passed": 2, "failed": 0}}
    before = {
        "local": {"on": LOCAL.on(), "tests": gate},
        "pbs": {"on": "a stand-in"},
        "flux": {"on": "a real one", "real": True},
    }
    file.write_text(json.dumps(before))
    config = SimpleNamespace(option=SimpleNamespace(keyword=""), args=["tests/contract"])
    record = recording.Recording(cast("pytest.Config", config), file)
    record.pytest_collection_modifyitems(
        [*(_item(LOCAL, name) for name in "abc"), _item(PBS, "d"), _item(FLUX, "f")]
    )
    for name, when, outcome in (
        ("a", "call", "passed"), ("a", "teardown", "failed"), ("b", "call", "passed"),
        ("c", "setup", "skipped"), ("d", "setup", "skipped"), ("e", "call", "failed"),
        ("f", "call", "passed"),
    ):  # fmt: skip
        record.pytest_runtest_logreport(_report(name, when, outcome))
    record.pytest_sessionfinish(pytest.ExitCode.INTERRUPTED)
    assert json.loads(file.read_text()) == before
    record.pytest_sessionfinish(pytest.ExitCode.TESTS_FAILED)
    after = json.loads(file.read_text())
    assert (after["pbs"], after["flux"]) == (before["pbs"], before["flux"])
    assert after["local"]["tests"] == gate | {"test_law": {"passed": 1, "failed": 1}}
    assert after["local"]["real"]


def test_a_part_of_a_module_is_not_recorded(tmp_path: Path) -> None:
    for keyword, args in (("law", []), ("", ["tests/contract/test_law.py::test_x"])):
        config = SimpleNamespace(option=SimpleNamespace(keyword=keyword), args=args)
        with pytest.raises(pytest.UsageError, match="whole modules"):
            recording.Recording(cast("pytest.Config", config), tmp_path / "record.json")
