"""`python -m tclient` and the command `tclient`."""

from tclient._launcher.command import main

if __name__ == "__main__":
    main()
