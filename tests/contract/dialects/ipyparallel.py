"""A real ipyparallel cluster, as ``tests/clusters/ipyparallel.sh`` starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
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


@contextmanager
def _stopped() -> Iterator[None]:
    """Have the controller and its engines, which are the user's own, stopped and started anew."""
    script = Path(__file__).parents[2] / "clusters" / "ipyparallel.sh"
    named = {"HPCPIPE_TEST_IPYPARALLEL_DIR": os.environ["HPCPIPE_TEST_IPYPARALLEL"]}
    environment = os.environ | named | {"PYTHON": sys.executable}

    def tell(word: str) -> None:
        argv = [str(script), word]
        subprocess.run(argv, env=environment, capture_output=True, timeout=120, check=True)

    tell("down")
    try:
        yield
    finally:
        tell("up")


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
    on=lambda: f"ipyparallel {version('ipyparallel')}",
    census=_census,
    missing=_missing,
    stopped=_stopped,
    lasting=False,  # its queue is in the controller's memory
)
