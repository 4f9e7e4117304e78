#!/usr/bin/env bash
# Everything that must hold before a change lands: format, lint, types, import contracts, documentation, doctests, tests.
#
#     bash scripts/test.sh [--oldest]
#
# --oldest: the tests alone, with the oldest versions we claim (constraints-oldest.txt).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh

if [ "${1:-}" = --oldest ]; then
  make_venv .venv-oldest constraints-oldest.txt "[dev]"
  say "tests with the oldest versions"
  .venv-oldest/bin/python -m pytest -q
  exit
fi
make_venv .venv constraints.txt "[dev]"
bin=.venv/bin

say "format"
$bin/ruff format --check .
say "lint"
$bin/ruff check --extend-select I,UP,B,D1 --ignore D105,D107 --target-version py310 . \
  --config 'lint.per-file-ignores = {"tests/**" = ["D1", "B905"]}'
say "types"
$bin/mypy
say "import contracts"
$bin/lint-imports
say "documentation"
$bin/sphinx-build -q -W --keep-going docs build/docs
say "doctests and tests"
$bin/python -m pytest -q -rs
$bin/python tests/browser.py
