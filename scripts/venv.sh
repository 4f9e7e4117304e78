# Sourced by the set-up scripts: makes a virtual environment and installs the project.
#
#     make_venv FOLDER CONSTRAINTS EXTRAS
#
# Does nothing if the folder already holds an installation made from the same files.

say() { printf '\n== %s\n' "$*"; }

find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3.10 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python 3.10 to 3.13 found; wanted one on the PATH" >&2
  return 1
}

make_venv() {
  local folder=$1 constraints=$2 extras=$3 stamp python
  stamp="$(cat setup.cfg pyproject.toml "$constraints" | cksum) $PWD $extras"
  if [ -f "$folder/.installed" ] && grep -qxF "$stamp" "$folder/.installed"; then
    say "using $folder, installed before"
    return
  fi
  if [ ! -x "$folder/bin/python" ]; then
    python=$(find_python)
    say "making $folder with $("$python" --version)"
    "$python" -m venv "$folder"
  fi
  say "installing avalanche_ext$extras into $folder as pinned in $constraints (some GB the first time)"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".$extras"
  echo "$stamp" >>"$folder/.installed"
}
