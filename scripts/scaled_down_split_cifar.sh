#!/usr/bin/env bash
# The Split-CIFAR protocol on a small budget: 60 images a class, 10 epochs, batches of 32.
#
#     bash scripts/scaled_down_split_cifar.sh --dataset-root DIR [further options of every run]
#
# Seven methods and joint training, three seeds, one thread each: about an hour in all. SEEDS="0 1" takes
# fewer. A second call goes on where the first was stopped. Results are in results/scaled_down_split_cifar (OUT).
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"

budget=(--images_per_class 60 --train_epochs 10 --train_mb_size 32)
protocol=(--stream split_cifar10_100 --class_order natural --task_labels true --network cifarnet --optimizer adam --lr 0.001)
# without the published mirror images in the test, which the baselines have not either
points=(--memory_size 60 --mirror_test false)

run() { # name of the row, recipe, its options
  "${python[@]}" -m benchmarks run "$2" "${budget[@]}" "${@:3}" --threads 1 --resume --out "$out/$1"
}

for seed in ${SEEDS:-0 1 2}; do
  every=(--seed "$seed" "$@")
  run naive naive "${protocol[@]}" "${every[@]}"
  run ewc ewc "${protocol[@]}" --ewc_lambda 100 "${every[@]}"
  run replay replay "${protocol[@]}" --exemplars 300 "${every[@]}"
  run fr ewc_fr_replay_cifar "${points[@]}" --strength "[0]" --replay_fraction 0 --tau 0.1 --tau2 1 "${every[@]}"
  run fr_replay ewc_fr_replay_cifar "${points[@]}" --strength "[0]" --tau 0.1 --tau2 1 "${every[@]}"
  run ewc_fr_replay ewc_fr_replay_cifar "${points[@]}" "${every[@]}"
  run joint ewc_fr_replay_cifar --memory_size 600 --replay_fraction 1 --strength "[0]" --tau 1 "${every[@]}"
done
"${python[@]}" -m benchmarks table "$out"
