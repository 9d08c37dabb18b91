"""`python -m ppdgm`: the command line."""

from ppdgm.cli import main

if __name__ == "__main__":
    main()
