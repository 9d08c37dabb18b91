"""log p(x) of MNIST's 10,000 test images, k = 5,000, with Burda's network: time and memory of the diagnosis.

    PPDGM_DATA=… python benchmarks/likelihood.py

`fit.diagnose(…, parts="likelihood")` keeps all 10,000 × 5,000 log-weights, for Pareto k̂, effective sample sizes and the
bounds over k. The peak of the process's memory is reported too. PPDGM_DATA names a folder that holds `mnist/`. Beside
pythae's `get_nll` and loops by hand: `python -m benchmarks.programs likelihood`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from burda import first_values, program_of
from mnist import images

import ppdgm
from ppdgm.data import binarise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "PPDGM_DATA" not in os.environ:
        sys.exit("Set PPDGM_DATA to the folder that holds mnist/ with the four gzipped idx files.")
    folder, program = Path(os.environ["PPDGM_DATA"]), program_of(1)
    train, test = images(folder, "train"), binarise(images(folder, "t10k"), seed=2)
    fit = ppdgm.fit(program, train, epochs=options.epochs, binarise="dynamic", params=first_values(program, train))
    del train
    started = time.perf_counter()
    found = fit.diagnose(test, parts="likelihood", k=options.k)
    whole = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    print(f"{len(test)} images, k = {options.k}: {whole:.0f} s, peak memory {peak:.2f} GiB\n{found}", flush=True)
    result: dict[str, Any] = {"images": len(test), "k": options.k, "seconds": whole, "peak_gib": peak}
    result["log_likelihood"], result["error"] = found.log_likelihood.mean, found.log_likelihood.standard_error
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
