"""The workflow that a user writes: nodes, and the axes they are mapped over."""
