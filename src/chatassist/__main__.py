"""`python -m chatassist` is the `chatassist` command."""

from chatassist.entrypoints.cli import main

if __name__ == "__main__":
    main()
