"""From a plan to jobs: prepare batches and scripts, submit, recover, cancel, retry."""
