#!/usr/bin/env bash
# The CIFAR-100 protocol on a small budget: 100 images a class, one block a stage, 20 epochs.
#
#     bash scripts/scaled_down.sh --dataset-root DIR [further options of every run]
#
# Six methods, three seeds, one thread each: about two hours in all. SEEDS="0 1" takes fewer.
# A second call goes on where the first was stopped. Results are in results/scaled_down (OUT).
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"

budget=(--n_experiences 6 --images_per_class 100 --network resnet8 --train_epochs 20 --milestones "[10,15]")
protocol=(--stream split_cifar100 --first_experience_classes 50 --class_order icarl --train_mb_size 128 --lr 0.1 --weight_decay 0.0005)

run() { # name of the row, recipe, its options
  "${python[@]}" -m benchmarks run "$2" "${budget[@]}" "${@:3}" --threads 1 --resume --out "$out/$1"
}

for seed in ${SEEDS:-0 1 2}; do
  every=(--seed "$seed" "$@")
  run lucir bdr_cifar100 --cwd false --bdr false --channels_last true "${every[@]}"
  run lucir_bdr bdr_cifar100 --cwd false --channels_last true "${every[@]}"
  run bdr bdr_cifar100 --channels_last true "${every[@]}"
  run lucir_cwd bdr_cifar100 --bdr false --channels_last true "${every[@]}"
  run naive naive "${protocol[@]}" "${every[@]}"
  run replay replay "${protocol[@]}" --exemplars 2000 "${every[@]}"
done
"${python[@]}" -m benchmarks table "$out"
