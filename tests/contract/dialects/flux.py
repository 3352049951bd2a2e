"""A stand-in for Flux."""

from __future__ import annotations

from contract.dialects import standin
from contract.dialects.base import Dialect
from hpcpipe.schedulers.flux import Flux as Adapter

FLUX = Dialect(
    name="flux",
    site=str(standin.STANDINS / "flux.toml"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#flux:",
    job=("--time-limit=600s",),
    array=("--cc={indices}", "--time-limit=600s"),
    index="$FLUX_JOB_CC",
    element="echo $FLUX_JOB_ID",
    begin='exec >>"{log}" 2>&1\n',
    variables=standin.variables("flux"),
    end=standin.end,
    refused=("--queue=nowhere", "[Errno 22] 'nowhere' is not a valid queue"),
    short_time="3s",
    on=lambda: "a stand-in, after samples of flux-core 0.88",
    real=False,
    census=standin.census,
    commands=("flux",),
    ahead=1,  # the gate
    words=('"state": "DEPEND"', '"state": "HIBERNATE"'),
)
