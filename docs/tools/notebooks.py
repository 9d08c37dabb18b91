"""Writes every tutorial as a notebook: python docs/tools/notebooks.py [FOLDER], by default build/notebooks."""

import sys
from pathlib import Path

import cells
import nbformat

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/notebooks")
    folder.mkdir(parents=True, exist_ok=True)
    for path in cells.tutorials():
        nbformat.write(cells.notebook(path.read_text(encoding="utf-8")), folder / f"{path.stem}.ipynb")
    print(f"{len(cells.tutorials())} notebooks in {folder}/")
