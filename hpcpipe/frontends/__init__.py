"""Other ways to define a workflow: a file, ``hpcpipe map``, graphs of other packages."""
