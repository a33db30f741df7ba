"""`python -m cliptune` is the command `cliptune`."""

from cliptune.cli import main

if __name__ == "__main__":
    main()
