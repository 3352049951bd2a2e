"""A stand-in for LSF."""

from __future__ import annotations

from contract.dialects import standin
from contract.dialects.base import Dialect
from hpcpipe.schedulers.lsf import LSF as Adapter

ASKED = ("-o /dev/null", "-n 1", "-M 50MB", "-W 10")

LSF = Dialect(
    name="lsf",
    site=standin.site("lsf", "normal"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#BSUB",
    job=ASKED,
    array=("-J try{unique}[{indices}]", *ASKED),
    index="$LSB_JOBINDEX",
    element="""case ${LSB_JOBINDEX:-0} in 0) ;; *) index="[$LSB_JOBINDEX]" ;; esac; """
    "echo $LSB_JOBID$index",
    begin='exec >>"{log}" 2>&1\n',
    variables=lambda home: standin.variables("lsf")(home) | {"STANDIN_MINUTE": "3"},
    end=standin.end,
    refused=("-q nowhere", "nowhere: No such queue. Job not submitted."),
    short_time="1m",
    on=lambda: "a stand-in, after documents of LSF 10.1",
    real=False,
    census=standin.census,
    commands=("bsub", "bjobs", "bresume", "bkill", "lsid"),
    aligned=("bresume", "bsub", "bsub"),
    words=('"STAT":"PSUSP"', '"STAT":"HIBERN"'),
)
