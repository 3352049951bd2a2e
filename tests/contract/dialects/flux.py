"""A stand-in for Flux; or a real one, of which ``HPCPIPE_TEST_FLUX`` names a site file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from contract.dialects import standin
from contract.dialects.base import Census, Dialect, answers, nothing, says
from hpcpipe.schedulers.base import run_command
from hpcpipe.schedulers.flux import Flux as Adapter


def _census(spools: Mapping[str, Path]) -> Census:
    told: Census = {name: Counter() for name in spools}
    asked = run_command(("flux", "jobs", "-a", "-c", "0", "--json"))
    for row in json.loads(asked.stdout)["jobs"]:
        if (name := Path(row.get("cwd", "/")).parent.name) in told:
            good = row.get("result") == "COMPLETED"
            live = row["state"] != "INACTIVE"
            told[name]["live" if live else "good" if good else "bad"] += 1
    return told


STANDIN = Dialect(
    name="flux",
    site=standin.site("flux", "batch"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#flux:",
    job=("--time-limit=600s",),
    array=("--cc={indices}", "--time-limit=600s"),
    index="$FLUX_JOB_CC",
    element="echo $FLUX_JOB_ID | sed s/ƒ/f/",
    begin='exec >>"{log}" 2>&1\n',
    variables=standin.variables("flux"),
    end=standin.end,
    refused=("--queue=nowhere", "[Errno 22] 'nowhere' is not a valid queue"),
    short_time="6s",  # what is to use too much memory must have started by then
    on=lambda: "a stand-in, after samples of flux-core 0.88",
    real=False,
    census=standin.census,
    commands=("flux",),
    ahead=2,  # its name, and the gate
    apart=2,  # it submits, and asks which copy is which
    words=('"state": "DEPEND"', '"state": "HIBERNATE"'),
)

REAL = replace(
    STANDIN,
    site=os.environ.get("HPCPIPE_TEST_FLUX", ""),
    out_of_reach=lambda home: {"FLUX_URI": f"local://{home}/nowhere"},
    variables=nothing,
    end=nothing,
    refused=("--queue=nowhere", "[Errno "),
    on=says("flux", "version"),
    real=True,
    census=_census,
    missing=answers("HPCPIPE_TEST_FLUX", "flux", "jobs"),
)

FLUX = REAL if os.environ.get("HPCPIPE_TEST_FLUX") else STANDIN
