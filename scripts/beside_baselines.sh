#!/usr/bin/env bash
# The five methods beside Avalanche's own strategies in the same frame, and with as many bytes: real MNIST in five
# experiences of two classes, 1,000 images a class.
#
#     bash scripts/beside_baselines.sh --mnist-root DIR --cifar10-root DIR [further options of the sweep, e.g. --jobs 2]
#
# For AR1* a small MobileNet is first pretrained on 6,000 images of CIFAR-10 (a few minutes), unless WEIGHTS names its
# file; its baselines start from it too. Three seeds, 123 runs: about an hour of two cores. SEEDS="0 1" takes fewer. A
# second call goes on where the first was stopped. Results are in results/beside_baselines (OUT).
roots="mnist cifar10"
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"
weights=${WEIGHTS:-$out/mobilenet.pt}
every=(--seeds "$(tr ' ' ',' <<<"${SEEDS:-0 1 2}")" --class-orders --baselines --threads 1 ${mnist_root:+--dataset-root "$mnist_root"} --out "$out" "${options[@]}")

"${python[@]}" -m benchmarks sweep bdr_mnist ewc_fr_replay_mnist rerelrp_mnist --set images_per_class=1000 "${every[@]}"
"${python[@]}" -m benchmarks sweep mnemonics_mnist --set images_per_class=1000 --set exemplars_per_class=20 --set storage_dtype=uint8 \
  --set adjust_old=false "${every[@]}"
mkdir -p "$(dirname "$weights")"
[[ -f $weights ]] || "${python[@]}" -m benchmarks pretrain "$weights" --train_epochs 20 --threads 1 ${cifar10_root:+--dataset-root "$cifar10_root"}
"${python[@]}" -m benchmarks sweep ar1_star_mnist --set "weights=$weights" --set lr=0.05 --set later_lr=0.05 "${every[@]}"
"${python[@]}" -m benchmarks table "$out" --format beside
