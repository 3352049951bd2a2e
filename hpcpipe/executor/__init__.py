"""`concurrent.futures` on a cluster: calls become tasks, and outcomes resolve futures."""
