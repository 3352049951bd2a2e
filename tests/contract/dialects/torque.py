"""A stand-in for Torque."""

from __future__ import annotations

from contract.dialects import standin
from contract.dialects.base import Dialect
from hpcpipe.schedulers.torque import Torque as Adapter

ASKED = (
    "-N try",
    "-j oe",
    "-o /dev/null",
    "-l nodes=1:ppn=1",
    "-l mem=50mb",
    "-l walltime=00:10:00",
)

TORQUE = Dialect(
    name="torque",
    site=standin.site("torque", "batch"),
    capabilities=Adapter.capabilities,
    adapter=lambda _, run: Adapter(run),
    out_of_reach=standin.out_of_reach,
    mark="#PBS",
    job=ASKED,
    array=("-t {indices}", *ASKED),
    index="$PBS_ARRAYID",
    element="echo $PBS_JOBID",
    begin=standin.FOLDER,
    variables=standin.variables("torque", PBS_DEFAULT="pbshost"),
    end=standin.end,
    refused=("-q nowhere", "qsub: submit error (Unknown queue"),
    after_ended=False,
    short_time="6s",  # what is to use too much memory must have started by then
    on=lambda: 'a stand-in, after samples of Torque "master" of 2020',
    real=False,
    census=standin.census,
    commands=("qsub", "qstat", "qselect", "qrls", "qdel"),
    words=("<job_state>H", "<job_state>Hibernating"),
)
