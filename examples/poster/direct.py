"""The poster's "direct distribution" with today's hpcpipe: single calls.

Every ``SAD*.nii`` in the current folder is normalised to ``T2.nii`` in the same folder. What the
poster pushed and pulled is now the call's interface and its result; each subject has its own folder
automatically::

    HPCPIPE_SPM="octave /opt/spm12" python direct.py
"""

# Import components
import os
from glob import glob

from nipype.interfaces.spm import Normalize

from hpcpipe import Executor

if __name__ == "__main__":
    # Setup variables
    node = Normalize(template=os.path.abspath("T2.nii"))
    fl = sorted(glob(os.path.abspath("SAD*.nii")))

    # Run in parallel
    with Executor("direct", cpus=1, memory="1G", time="1h") as tc:
        ids = [tc.submit(node, source=f) for f in fl]
        for f, task in zip(fl, ids, strict=True):
            error = task.exception()
            print(os.path.basename(f), error or task.result()["normalized_source"])
