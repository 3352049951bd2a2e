"""The poster's "direct distribution" in today's spelling: calls made one by one.

Every ``SAD*.nii`` of the current folder is normalised to ``T2.nii`` beside them. What the poster
pushed and pulled is the call's interface and its result; the folder of its own that it made for
each subject is there by itself::

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
