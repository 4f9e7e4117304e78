#!/usr/bin/env bash
# AR1* on real MNIST at 32x32: new classes (NC) and new instances and classes (NIC), ours beside Avalanche's AR1.
#
#     bash scripts/ar1_mnist.sh --dataset-root MNIST --cifar10-root CIFAR10 [further options of every run]
#
# First a small MobileNet is pretrained on 6,000 images of CIFAR-10 (a few minutes), unless WEIGHTS names its file. Then
# for each stream, on the same weights, batches, learning rates and number of activations: ours with float32 and with
# uint8 activations, and Avalanche's AR1. Three seeds, one thread each: about half an hour. SEEDS="0 1" takes fewer.
# A second call goes on where the first was stopped. Results are in results/ar1_mnist (OUT).
roots=cifar10
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"
weights=${WEIGHTS:-$out/mobilenet.pt}
[[ " $* " != *" --weights"* ]] || { echo "--weights is decided here; wanted WEIGHTS=FILE before the command" >&2; exit 2; }

mkdir -p "$(dirname "$weights")"
[[ -f $weights ]] || "${python[@]}" -m benchmarks pretrain "$weights" --train_epochs 20 --threads 1 ${cifar10_root:+--dataset-root "$cifar10_root"}

run() { # name of the row, recipe, its options
  "${python[@]}" -m benchmarks run "$2" "${@:3}" --lr 0.05 --weights "$weights" --threads 1 --resume --out "$out/$1" "${options[@]}"
}

for seed in ${SEEDS:-0 1 2}; do
  for stream in nc nic; do
    case $stream in # activations, learning rate of later experiences, experiences between two evaluations
      nc) memory=300 later=0.05 apart=1 ;;
      nic) memory=150 later=0.01 apart=7 ;;
    esac
    every=(--stream "mnist_$stream" --memory_size "$memory" --eval-every "$apart" --seed "$seed")
    run "$stream" ar1_star_mnist "${every[@]}" --later_lr "$later"
    run "${stream}_uint8" ar1_star_mnist "${every[@]}" --later_lr "$later" --latent_dtype uint8
    run "${stream}_avalanche" avalanche_ar1 "${every[@]}" --inc_lr "$later"
  done
done
"${python[@]}" -m benchmarks table "$out"
