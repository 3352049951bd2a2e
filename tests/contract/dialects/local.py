"""The local scheduler, which is always there."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from contract.dialects.base import Census, Dialect
from hpcpipe.schedulers.local import Local
from hpcpipe.schedulers.local.spool import Spool


def _out_of_reach(home: Path) -> dict[str, str]:
    (home / "file").touch()
    return {"HPCPIPE_LOCAL": str(home / "file" / "spool")}


def _census(spools: Mapping[str, Path]) -> Census:
    told: Census = {}
    for name, folder in spools.items():
        spool = Spool(folder)
        words: dict[tuple[str, int], str] = {}
        for job in spool.ids():
            spec = spool.spec(job)
            assert spec is not None
            words |= {(job, index): "live" for index in spec.indices}
            for event in spool.events(job):
                span = range(event.first, event.last + 1)
                word = "good" if event.word == "COMPLETED" else event.word
                words |= {(job, index): word for index in span if event.end}
        told[name] = Counter(words.values())
    return told


LOCAL = Dialect(
    name="local",
    site="local",
    capabilities=Local.capabilities,
    adapter=lambda spool, _: Local(spool, grace=0.5),
    out_of_reach=_out_of_reach,
    mark="#HPCPIPE",
    job=("--output=logs/out",),
    array=("--array={indices}", "--output=logs/out.%a"),
    index="$HPCPIPE_INDEX",
    element="echo $HPCPIPE_JOB_ID${HPCPIPE_INDEX:+_$HPCPIPE_INDEX}",
    refused=("--cpus=none", "{script}, line 2: #HPCPIPE --cpus"),
    short_time="5s",
    on=lambda: f"{platform.system()} with Python {platform.python_version()}",
    census=_census,
)
