"""Run the tests of the exports to ArviZ, in a separate environment for each generation of ArviZ.

    python benchmarks/arviz_generations.py [--python python3.11 --python python3.13]

Python 3.11 has ArviZ 0.23 (InferenceData); from Python 3.12 on it is 1.x (DataTree). `make test` uses the ArviZ of its
own Python. Each environment is made in a temporary folder, from constraints.txt, with the NumPyro backend. This takes a
minute or two.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/test_diagnostics_arviz.py", "tests/test_diagnostics_weights.py")
WHOLE = """
import numpy as np, ppdgm
from ppdgm.models import PPCA
x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
fit = ppdgm.fit(PPCA(event_shape=(4,), posterior="linear"), x, steps=50, progress=False)
found = fit.to_arviz(x, draws=10, predictive=5, prior=20)
print(type(found).__name__, found["posterior"]["z"].sizes, found["posterior_predictive"]["x"].dims)
assert found["posterior"]["z"].shape == (1, 10, 30, 2)
ranks = fit.diagnose(x, parts="calibration", simulated=60, ranks=19).to_arviz()
assert ranks["prior_sbc"]["z"].shape == (1, 60, 2)
"""


def run(python: str, folder: Path) -> bool:
    """Whether the tests pass with this Python."""
    home = folder / python.replace("/", "_")
    subprocess.run([python, "-m", "venv", str(home)], check=True)
    own = str(home / "bin" / "python")
    install = [own, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*install, "pytest>=8.3", "."], cwd=ROOT, check=True)
    subprocess.run(
        [own, "-c", "import sys, arviz; print(sys.version.split()[0], 'ArviZ', arviz.__version__)"], check=True
    )
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([own, "-c", WHOLE], check=True, env=settings)
    # The tests' own conftest imports torch, which has no CPU build for some Pythons.
    done = subprocess.run(
        [own, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *TESTS], cwd=ROOT, env=settings
    )
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="interpreters; python3.11 and python3.13 by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        passed = {python: run(python, Path(folder)) for python in options.python or ["python3.11", "python3.13"]}
    print(passed)
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
