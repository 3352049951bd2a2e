"""``python -m hpcpipe``: the command line."""

from hpcpipe.cli import main

main()
