"""`worldmodels-fast` and `python -m worldmodels_fast`.

Apart from `cli/main.py`, because each spawned worker imports the command that started it: this way
it does not import all that the command line needs, torch first of all.
"""

import sys


def main() -> int:
    """Run the command line; see `cli.main.main`."""
    from worldmodels_fast.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
