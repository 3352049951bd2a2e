"""What is handed to DRMAA; that it is taken as meant, the contract tests show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcpipe.errors import ConfigError, SchedulerError, SubmitUnclear
from hpcpipe.jobs import After
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.drmaa import Drmaa
from hpcpipe.schedulers.drmaa.__main__ import native

GOLDEN = Path(__file__).parent / "golden" / "scripts" / "sge.txt"
SCRIPTS = dict(part.split("\n", 1) for part in GOLDEN.read_text().split("==> ")[1:])


def test_a_script_is_copied_with_its_directives_and_only_its_indices_are_told() -> None:
    said = native(SCRIPTS["python-array"], ["-ac", "hpcpipe=a b", "-h"])
    assert said == ('-b n -ac "hpcpipe=a b" -h', range(1, 4))
    assert native(SCRIPTS["all-that-can-be-asked"], []) == ("-b n", range(0))


def drmaa(status: int, stdout: str, stderr: str = "") -> tuple[Drmaa, list[Sequence[str]]]:
    calls: list[Sequence[str]] = []

    def run(argv: Sequence[str], cwd: Path | None) -> Done:
        assert cwd == Path("run")
        calls.append(argv)
        return Done(tuple(argv), status, stdout, stderr)

    return Drmaa(library="/opt/libdrmaa.so", run=run), calls


def test_each_submission_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    adapter, calls = drmaa(0, "7\n")
    assert adapter.submit(Path("run/batches/x.sh"), [After("6", "each")], token="t") == "7"
    tunables = "GLIBC_TUNABLES=glibc.malloc.check=1:glibc.rtld.optional_static_tls=4096"
    assert calls[0][:3] == ("env", tunables, "DRMAA_LIBRARY_PATH=/opt/libdrmaa.so")
    assert calls[0][-5:] == ("batches/x.sh", "-ac", "hpcpipe=t", "-hold_jid_ad", "6")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((1, "", "job rejected: the requested parallel environment"), SchedulerError, "job rej"),
        ((1, "", "unable to send message to qmaster using port 9"), SubmitUnclear, "unable"),
        ((0, "nothing\n", ""), SubmitUnclear, "nothing\n.DRMAA gave no job id"),
    ],
)
def test_what_goes_wrong_begins_with_the_schedulers_own_words(
    answer: tuple[int, str, str], kind: type[SchedulerError], words: str
) -> None:
    with pytest.raises(kind, match=f"^{words}") as raised:
        drmaa(*answer)[0].submit(Path("run/batches/x.sh"), token="t")
    assert type(raised.value) is kind


def test_only_a_dialect_that_is_there_is_taken() -> None:
    with pytest.raises(ConfigError, match="unknown dialect 'sgi'; did you mean sge"):
        Drmaa(dialect="sgi")
