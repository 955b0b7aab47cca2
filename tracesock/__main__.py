"""`python -m tracesock` is the command `tracesock`."""

from tracesock.cli import main

if __name__ == "__main__":
    main()
