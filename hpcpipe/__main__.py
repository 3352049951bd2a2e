"""``hpcpipe`` or ``python -m hpcpipe``: the command line, without garbage collection."""

import gc


def main() -> None:
    """Run the command line; it keeps nearly every object until exit, so collecting is useless."""
    gc.set_threshold(100_000)
    from hpcpipe.cli import main

    try:
        main()
    finally:
        gc.freeze()  # else the interpreter collects twice more at exit


if __name__ == "__main__":
    main()
