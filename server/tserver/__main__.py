"""`python -m tserver` and the command `tserver`."""

import sys

from tserver.extras import told


def main() -> None:
    """Run the command line."""
    try:
        from tserver.cli import main as command
    except ModuleNotFoundError as error:
        sys.exit(told(error))
    command()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the working directory first. A file there that is called like a library is not run in its place.
        del sys.path[0]
    main()
