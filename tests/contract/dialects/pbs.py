"""A stand-in for OpenPBS."""

from __future__ import annotations

from contract.dialects import standin
from contract.dialects.base import Dialect
from hpcpipe.schedulers.pbs import PBS as Adapter

ASKED = ("-N try", "-j oe", "-o /dev/null", "-l select=1:ncpus=1:mem=50mb", "-l walltime=00:10:00")

PBS = Dialect(
    name="pbs",
    site=str(standin.STANDINS / "pbs.toml"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#PBS",
    job=ASKED,
    array=("-J {first}-{last}", *ASKED),
    index="$PBS_ARRAY_INDEX",
    element="echo $PBS_JOBID",
    begin=standin.FOLDER,
    variables=standin.variables("pbs"),
    end=standin.end,
    refused=("-q nowhere", "qsub: Unknown queue"),
    short_time="3s",
    on=lambda: "a stand-in, after samples of OpenPBS 23.06.06",
    real=False,
    census=standin.census,
    commands=("qsub", "qstat", "qselect", "qrls", "qdel"),
    words=('"job_state":\t"Q"', '"job_state":\t"Hibernating"'),
)
