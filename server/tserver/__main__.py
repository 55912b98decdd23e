"""`python -m tserver` is the `tserver` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the working directory first. A file there that is called like a library is not run in its place.
        del sys.path[0]

    from tserver.cli import main

    main()
