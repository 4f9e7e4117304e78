# Sourced by the comparisons of methods: goes to the project's folder, sets python and out (results/NAME of the script),
# and refuses options that the comparison decides itself.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra python <<< "${PYTHON:-.venv/bin/python}"
out=${OUT:-results/$(basename "$0" .sh)}

for option in "$@"; do
  case $option in
    --out* | --seed*) echo "$option is decided here; wanted OUT=DIR or SEEDS=\"0 1\" before the command" >&2; exit 2 ;;
  esac
done
