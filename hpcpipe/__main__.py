"""``hpcpipe``, or ``python -m hpcpipe``: the command line, less Python's searches for garbage."""

import gc


def main() -> None:
    """Run the command line; it keeps nearly all that it makes until it ends, a moment later."""
    gc.set_threshold(100_000)
    from hpcpipe.cli import main

    try:
        main()
    finally:
        gc.freeze()  # else all of it is searched twice more on the way out


if __name__ == "__main__":
    main()
