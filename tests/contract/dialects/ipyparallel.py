"""A real ipyparallel cluster, as ``tests/clusters/ipyparallel.sh`` starts it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from contract.dialects.base import Census, Dialect
from hpcpipe.errors import HpcpipeError
from hpcpipe.schedulers.ipyparallel import Ipyparallel


@cache
def _missing() -> str:
    if not os.environ.get("HPCPIPE_TEST_IPYPARALLEL"):
        return "HPCPIPE_TEST_IPYPARALLEL is not set"
    try:
        Ipyparallel().poll(["x_1"])
    except HpcpipeError as error:
        return str(error)
    return ""


def _out_of_reach(home: Path) -> dict[str, str]:
    return {"IPYTHONDIR": str(home / "no-such-profile")}


def _census(spools: Mapping[str, Path]) -> Census:
    """Its records name no workflow, but the folder that they are sent with is in its name."""
    import ipyparallel
    from ipyparallel.serialize import unpack_apply_message

    told: Census = {name: Counter() for name in spools}
    with ipyparallel.Client() as client:
        keys = ["msg_id", "label", "completed", "result_content", "buffers"]
        for record in client.db_query({"msg_id": {"$ne": ""}}, keys=keys):
            if not (record["label"] or "").startswith("hpcpipe "):
                continue
            _, (element,), _ = unpack_apply_message(record["buffers"])
            name = Path(element.folder).parent.name
            if name in told:
                state = (record["result_content"] or {}).get("status", "")
                live = record["completed"] is None
                told[name]["live" if live else "good" if state == "ok" else state] += 1
    return told


IPYPARALLEL = Dialect(
    name="ipyparallel",
    site="test-ipyparallel",
    capabilities=Ipyparallel.capabilities,
    adapter=lambda *_: Ipyparallel(),
    out_of_reach=_out_of_reach,
    mark="#HPCPIPE",
    job=("--output=logs/out",),
    array=("--array={indices}", "--output=logs/out.%a"),
    index="$HPCPIPE_INDEX",
    element="echo $HPCPIPE_JOB_ID",
    refused=("--cpus=none", "{script}, line 2: #HPCPIPE --cpus"),
    short_time="5s",
    census=_census,
    missing=_missing,
)
