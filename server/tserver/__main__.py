"""`python -m tserver` and the command `tserver`."""

import signal
import sys

from tserver.extras import told


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C ends a command without a word. One that has something to end takes the signal itself.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from tserver.cli import main as command

        command()
    except ModuleNotFoundError as error:
        sys.exit(told(error))


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the working directory first. A file there that is called like a library is not run in its place.
        del sys.path[0]
    main()
