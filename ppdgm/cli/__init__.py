"""The command line: `ppdgm fit | resume | evaluate | sample | diagnose | models | data | runs | new`.

Nothing here imports torch or jax; slow imports are done by the command that needs them.
"""


def main() -> None:
    """Run the command in `sys.argv`, and exit with its code."""
    from ppdgm.cli.app import app

    app()


__all__ = ["main"]
