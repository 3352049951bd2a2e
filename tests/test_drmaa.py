"""What is handed to DRMAA; that it is taken as meant, the contract tests show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcpipe.errors import ConfigError, SchedulerError, SchedulerUnavailable
from hpcpipe.model import After
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.drmaa import Drmaa, native

SCRIPTS = Path(__file__).parent / "golden" / "scripts" / "sge"


def test_the_directives_of_a_script_become_native_flags() -> None:
    line, indices = native((SCRIPTS / "python-array.sh").read_text(), ["-ac", "hpcpipe=a b", "-h"])
    assert line == (
        "-shell n -N smooth.wf -S /bin/sh -j y -o logs/node-0a1b2c3d.$TASK_ID.out -r n "
        '-ac "hpcpipe=a b" -h'
    )
    assert indices == range(1, 4)
    line, indices = native((SCRIPTS / "all-that-can-be-asked.sh").read_text(), [])
    assert "-q gpu -P lab -pe smp 4 -l h_vmem=1024M -l h_rt=01:30:00" in line
    assert not indices


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
        ((1, "", "unable to send message to qmaster using port 9"), SchedulerUnavailable, "unable"),
        ((0, "nothing\n", ""), SchedulerError, "nothing\n.DRMAA gave no job id"),
    ],
)
def test_what_goes_wrong_begins_with_the_schedulers_own_words(
    answer: tuple[int, str, str], kind: type[SchedulerError], words: str
) -> None:
    with pytest.raises(kind, match=f"^{words}") as raised:
        drmaa(*answer)[0].submit(Path("run/batches/x.sh"), token="t")
    assert type(raised.value) is kind


def test_only_a_dialect_that_is_there_is_taken() -> None:
    with pytest.raises(ConfigError, match="'sgi' is none; did you mean sge"):
        Drmaa(dialect="sgi")
