# Sourced by the comparisons of methods: goes to the project's folder, sets python and out (results/NAME of the script),
# and refuses options that the comparison decides itself. A script that names its folders of data in roots, such as
# roots="mnist cifar10", gets what follows --mnist-root and --cifar10-root in mnist_root and cifar10_root; all other
# words stay its arguments. --help prints the comment that the script starts with.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra python <<< "${PYTHON:-.venv/bin/python}"
out=${OUT:-results/$(basename "$0" .sh)}

options=()
while (($#)); do
  name=${1#--} name=${name%-root}
  case $1 in
    -h | --help) awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "scripts/$(basename "$0")"; exit 0 ;;
    --out* | --seed*) echo "$1 is decided here; wanted OUT=DIR or SEEDS=\"0 1\" before the command" >&2; exit 2 ;;
    --*-root)
      if [[ " ${roots:-} " == *" $name "* ]]; then
        [[ -n ${2:-} && $2 != --* ]] || { echo "$1 is followed by ${2:-nothing}; wanted a folder" >&2; exit 2; }
        printf -v "${name}_root" %s "$2"
        shift 2
        continue
      fi
      ;;
  esac
  options+=("$1")
  shift
done
set -- "${options[@]}"
