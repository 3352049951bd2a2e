"""The state of a run, derived from the ledger, the scheduler's words and what lies on disk."""
