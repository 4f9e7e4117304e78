#!/usr/bin/env bash
# Whole published runs, one of each kind: BDR with ResNet-18 and LUCIR with ResNet-32 on CIFAR-100 in 50 classes and
# five times 10, EWC+FR+Replay on Split-CIFAR, AR1* on CORe50 NICv2-391.
#
#     bash scripts/published_runs.sh --cifar-root DIR --core50-root DIR [further options of every run]
#     bash scripts/published_runs.sh --stand-in --device cuda --precision bf16 --channels_last true
#
# The folder of CIFAR holds both CIFAR-10 and CIFAR-100. With --stand-in, generated images of the same number and size take
# the place of data whose folder is not given (3.5 GB), and AR1* starts from random weights, not those of ImageNet: each
# run says so in its note and is never compared with a paper. --smoke tries the same commands at a small size: about 45 s of
# CPU time, over half of which five processes take to import Avalanche; minutes where other work runs.
# RUNS="bdr lucir" takes fewer; one seed, or SEEDS="0 1". A second call goes on where the first was stopped. Days on a CPU;
# results are in results/published_runs (OUT), and below it in stand_in and smoke; one table at the end.
roots="cifar core50"
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"

every=() few=() stand_in=
for option in "${options[@]}"; do
  case $option in
    --stand-in) stand_in=yes out+=/stand_in ;;
    --smoke) few=(--n 2) out+=/smoke ;;
    *) every+=("$option") ;;
  esac
done
for name in ${RUNS:=bdr lucir ewc_fr_replay ar1_star}; do
  [[ " bdr lucir ewc_fr_replay ar1_star " == *" $name "* ]] \
    || { echo "RUNS names $name; wanted some of bdr, lucir, ewc_fr_replay, ar1_star" >&2; exit 2; }
done

data() { # sets root and note; names of the data, folder given
  root=$2 note=()
  if [[ -z $root && -n $stand_in ]]; then
    root=$out/images/${1// /_} note=(--note "stand-in images")
    "${python[@]}" scripts/stand_in.py "$root" --data $1 "${few[@]}"
  fi
}

run() { # recipe, its options
  "${python[@]}" -m benchmarks run "$1" ${root:+--dataset-root "$root"} "${note[@]}" "${@:2}" --seed "$seed" --resume --out "$out" "${every[@]}"
}

network=() points=() latents=()
if ((${#few[@]})); then
  every=(--images_per_class 2 --train_epochs 1 --train_mb_size 16 "${every[@]}")
  network=(--network resnet8 --milestones "[]" --n_experiences 2 --exemplars_per_class 2) points=(--memory_size 5) latents=(--memory_size 20 --n_experiences 3)
fi
for seed in ${SEEDS:-0}; do
  for name in $RUNS; do
    case $name in
      bdr) data "cifar10 cifar100" "${cifar_root:-}"; run bdr_cifar100 "${network[@]}" ;;
      lucir) data "cifar10 cifar100" "${cifar_root:-}"; run lucir_cifar100 "${network[@]}" ;;
      ewc_fr_replay) data "cifar10 cifar100" "${cifar_root:-}"; run ewc_fr_replay_cifar "${points[@]}" ;;
      ar1_star)
        data core50 "${core50_root:-}"
        weights=()
        ((${#note[@]} == 0)) || weights=(--weights null --freeze_first false)
        run ar1_star_core50 "${weights[@]}" "${latents[@]}" --eval-every 10
        ;;
    esac
  done
done
"${python[@]}" scripts/published_runs.py "$out"
