"""The command line: `ppdgm fit | resume | evaluate | sample | models | data | runs | new`.

Nothing here imports torch or jax; what is slow to import is imported by the command that needs it.
"""


def main() -> None:
    """Run the command that `sys.argv` asks for, and exit with its code."""
    from ppdgm.cli.app import app

    app()


__all__ = ["main"]
