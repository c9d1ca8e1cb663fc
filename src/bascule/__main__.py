"""`python -m bascule`: the command, where the script is not on the path."""

from bascule.cli import main

if __name__ == "__main__":
    main()
