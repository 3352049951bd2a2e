"""The ledger: what its lines amount to, and that a client killed while writing harms none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpipe.store.ledger import History, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def names(history: History) -> dict[str, list[str]]:
    """Name the batches by what is to be done about them."""
    return {
        "accepted": [one.batch for one in history.submissions.values() if one.job],
        "adrift": [one.batch for one in history.adrift()],
        "held": [one.batch for one in history.held()],
    }


def test_no_ledger_is_an_empty_history(ledger: Ledger) -> None:
    history = ledger.read()
    assert (history.runs, history.submissions) == ([], {})


def test_each_fact_moves_a_submission_on(ledger: Ledger) -> None:
    ledger.run(1, site="here")
    assert ledger.read().last["site"] == "here"
    a = ledger.submitting("a", 1, "token", held=True, instance="slurm:alps")
    assert names(ledger.read()) == {"accepted": [], "adrift": ["a"], "held": []}
    ledger.submitted(a, "7", "token")
    assert names(ledger.read()) == {"accepted": ["a"], "adrift": [], "held": ["a"]}
    b = ledger.submitting("b", 1, "other", held=False, instance="slurm:alps")
    ledger.submitted(b, "8", "other")
    ledger.released(["a"])
    assert names(ledger.read()) == {"accepted": ["a", "b"], "adrift": [], "held": []}
    ledger.cancelled(["a"], "hpcpipe cancel")
    ledger.refused(["b"], "no such account", "--account lab", full=False)
    a, b = ledger.read().submissions.values()
    assert (a.cancelled, a.refused, a.why) == (True, False, "hpcpipe cancel")
    assert (b.cancelled, b.refused, b.hint) == (True, True, "--account lab")


def test_what_was_cancelled_is_neither_adrift_nor_held(ledger: Ledger) -> None:
    ledger.run(1)
    ledger.submitting("a", 1, "t", held=True, instance="slurm:alps")
    b = ledger.submitting("b", 1, "u", held=True, instance="slurm:alps")
    ledger.submitted(b, "8", "u")
    ledger.cancelled(["a", "b"], "never reached the scheduler")
    assert names(ledger.read()) == {"accepted": ["b"], "adrift": [], "held": []}


def test_a_ledger_cut_short_anywhere_is_read_and_goes_on(ledger: Ledger) -> None:
    ledger.run(1, site="naïve")
    a = ledger.submitting("a", 1, "token", held=True, instance="slurm:alps")
    ledger.submitted(a, "7", "token")
    ledger.released(["a"])
    ledger.cancelled(["a"], "hpcpipe\ncancel")
    whole = ledger.path.read_bytes()
    for end in range(len(whole)):
        ledger.path.write_bytes(whole[:end])
        before = ledger.read()
        assert len(before.runs) + len(before.submissions) <= whole[: end + 1].count(b"\n") + 1
        ledger.run(2)
        ledger.submitting("b", 2, "other", held=False, instance="slurm:alps")
        after = ledger.read()
        assert after.last["run"] == 2
        assert after.submissions["b"].token == "other"
        assert after.submissions.get("a") == before.submissions.get("a")


def test_only_its_owner_may_read_the_ledger(ledger: Ledger) -> None:
    ledger.run(1)
    assert ledger.path.stat().st_mode & 0o777 == 0o600
