"""`python -m tserver` is the `tserver` command."""

from tserver.cli import main

if __name__ == "__main__":
    main()
