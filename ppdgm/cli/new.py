"""`ppdgm new`: your own program, to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from ppdgm.cli.options import Debug
from ppdgm.cli.output import say


def new(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file to write, such as my_program.py.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the class. Default: MyProgram for my_program.py.", show_default=False
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a file with your own program. It has comments, and trains as it is.

    Examples:
      ppdgm new my_program.py
      ppdgm fit my_program.py:MyProgram
      ppdgm fit my_program.py:MyProgram --data mnist --epochs 20
    """
    import keyword
    import re
    import shlex
    from importlib.resources import files
    from pathlib import Path

    from ppdgm.cli.code import check_name
    from ppdgm.errors import CheckpointError, SpecError

    path = Path(file)
    if path.suffix != ".py":
        raise SpecError(f"Got {file!r}, expected a Python file, such as my_program.py.")
    module = re.sub(r"\W", "_", path.stem)
    name = name or "".join(word[:1].upper() + word[1:] for word in module.split("_")) or "MyProgram"
    if not name.isidentifier() or keyword.iskeyword(name):
        raise SpecError(f"--name: got {name!r}, expected the name of a class, such as MyProgram.")
    check_name(module, path)
    text = files("ppdgm.cli").joinpath("my_program.py.txt").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text.replace("MyProgram", name).replace("my_program.py", path.name))
    except FileExistsError:
        raise CheckpointError(f"{file} exists, and was not changed. Choose another name.") from None
    say(f"{file} has the program {name}. To train it:")
    say(f"  ppdgm fit {shlex.quote(f'{file}:{name}')}")
