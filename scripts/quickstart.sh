#!/usr/bin/env bash
# From nothing to results: installs into .venv, trains on data that need no download, prints the results table
# and the path of a page of plots.
#
#     bash scripts/quickstart.sh
#
# A second call reuses .venv and what was trained before; results are in results/quickstart.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh

make_venv .venv constraints.txt ""
out=results/quickstart
say "training five methods beside Naive and Replay on split_digits, two at a time"
.venv/bin/python -m benchmarks sweep naive replay lucir_digits bdr_digits ewc_fr_replay_digits ar1_star_digits \
  rerelrp_digits mnemonics_digits --jobs 2 --threads 1 --out "$out"
say "results"
.venv/bin/python -m benchmarks table "$out"
say "plots, for a browser"
.venv/bin/python -m benchmarks report "$out"
