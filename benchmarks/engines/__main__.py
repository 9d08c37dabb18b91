"""Every engine on every program, on both backends: it trains, or refuses before any work starts.

    python -m benchmarks.engines                     # all: about an hour on two cores; continues where it stopped
    python -m benchmarks.engines --backend pyro      # those of one backend
    python -m benchmarks.engines --tenth 0           # one tenth of them, as in the tests

Writes benchmarks/results/engines.csv, one row at a time, and engines.md. To measure a row again, delete it.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.engines.run import RESULTS, TRAINS, rows, run, tenth, write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("numpyro", "pyro"))
    parser.add_argument("--tenth", type=int, metavar="SEED", help="a tenth of the rows, drawn with this seed")
    parser.add_argument("--table", action="store_true", help="only write the table of what is known")
    options = parser.parse_args()
    chosen = [r for r in rows() if options.backend in (None, r[2])]
    if options.tenth is not None:
        chosen = tenth(chosen, options.tenth)
    done = run([] if options.table else chosen)
    write_table(done, RESULTS / "engines.md")
    lost = [r for r in chosen if r in done and done[r]["outcome"] == TRAINS and not done[r]["margin"] > 0]
    sys.exit("\n".join(["Below pixels by themselves:", *(" · ".join(r) for r in lost)]) if lost else 0)


if __name__ == "__main__":
    main()
