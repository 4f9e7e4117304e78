#!/usr/bin/env bash
# From nothing to results: installs into .venv, trains on data that need no download, prints the results table.
#
#     bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh

make_venv .venv constraints.txt ""
out=results/quickstart
rm -rf "$out"
for recipe in naive replay lucir; do
  say "training $recipe on split_digits"
  .venv/bin/python -m benchmarks run "$recipe" --smoke --out "$out"
done
say "results"
.venv/bin/python -m benchmarks table "$out"
