"""Everything on disk below ``<base_dir>/<workflow>/.hpcpipe``: paths, the ledger, records."""
