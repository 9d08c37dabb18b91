"""Every pair of choices among priors, posteriors, likelihoods, nets, engines and backends, at least once.

    python -m benchmarks.covering                # all rows: half an hour on two idle cores; continues where it stopped
    python -m benchmarks.covering --tenth 0      # one tenth of them, as in the tests
    python -m benchmarks.covering --list         # the rows

Each row is trained for 200 steps on digits and must beat the per-pixel baseline of its own likelihood on held-out
images. Writes benchmarks/results/covering.csv, one row at a time, and covering.md. To measure a row again, delete it.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.covering.run import RESULTS, covering_set, run, tenth, write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenth", type=int, metavar="SEED", help="a tenth of the rows, drawn with this seed")
    parser.add_argument("--limit", type=int, help="stop after so many rows")
    parser.add_argument("--list", action="store_true", help="only show the rows")
    options = parser.parse_args()
    rows = covering_set()
    chosen = (rows if options.tenth is None else tenth(rows, options.tenth))[: options.limit]
    if options.list:
        print("\n".join(" · ".join(row) for row in chosen))
        return
    done = run(chosen, RESULTS / "covering.csv")
    write_table(rows, done, RESULTS / "covering.md")
    lost = [row for row in chosen if not done[row]["margin"] > 0]
    print(f"{len(chosen) - len(lost)} of {len(chosen)} rows beat their baseline.")
    sys.exit("\n".join(["Not:", *(" · ".join(row) for row in lost)]) if lost else 0)


if __name__ == "__main__":
    main()
