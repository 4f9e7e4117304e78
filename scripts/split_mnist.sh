#!/usr/bin/env bash
# Real MNIST in five tasks, one epoch each, 40 points kept of each task: EWC+FR+Replay, its parts, Avalanche's EWC
# and replay.
#
#     bash scripts/split_mnist.sh --dataset-root DIR [further options of every run]
#
# Nine methods and three seeds, one thread each: about ten minutes. SEEDS="0 1" takes fewer. A second call goes on
# where the first was stopped. Results are in results/split_mnist (OUT); at the end, the table and the
# gradient-reconstruction error at the end of the second task.
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"

protocol=(--stream split_mnist --class_order natural --task_labels true --network mlp --feature_size 256 --train_epochs 1 --train_mb_size 64)

run() { # name of the row, recipe, its options
  "${python[@]}" -m benchmarks run "$2" "${@:3}" --metrics gradient_reconstruction --loggers text --threads 1 --resume --out "$out/$1"
}

for seed in ${SEEDS:-0 1 2}; do
  every=(--seed "$seed" "$@")
  run ewc_fr_replay ewc_fr_replay_mnist "${every[@]}"
  run replay_40 ewc_fr_replay_mnist --strength "[0]" --replay_fraction 1 "${every[@]}"
  run fr ewc_fr_replay_mnist --strength "[0]" --replay_fraction 0 "${every[@]}"
  run fr_replay ewc_fr_replay_mnist --strength "[0]" "${every[@]}"
  run left_out_ewc ewc_fr_replay_mnist --memory_size 0 "${every[@]}"
  run naive naive "${protocol[@]}" "${every[@]}"
  run ewc_100 ewc "${protocol[@]}" --ewc_lambda 100 "${every[@]}"
  run ewc_10000 ewc "${protocol[@]}" --ewc_lambda 10000 "${every[@]}"
  run replay_200 replay "${protocol[@]}" --exemplars 200 "${every[@]}"
done
"${python[@]}" -m benchmarks table "$out"
"${python[@]}" scripts/further_metrics.py "$out" relative cosine --experience 2
