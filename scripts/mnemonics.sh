#!/usr/bin/env bash
# Scaled down: exemplars at random, herded and optimised from either, with the same training: MNIST in five experiences
# of two classes, and CIFAR-100 (or a stand-in of its format) in 20 classes and four times 20.
#
#     bash scripts/mnemonics.sh --mnist-root DIR --cifar100-root DIR [further options of every run]
#
# Two exemplars a class. Rows ending in _float32 keep as many exemplars as the others (equal number), those in _uint8
# round them, and keep as many bytes as random and herding do (equal bytes). bilevel is the paper's objective, ncm that
# of the released code. Class orders are drawn by the seed. Three seeds, one thread each: about an hour. SEEDS="0 1"
# takes fewer, DATA="mnist" one stream. A second call goes on where the first was stopped. Results are in
# results/mnemonics (OUT); at the end, both classifiers' accuracies, and what each row gains over herding, seed by seed.
roots="mnist cifar100"
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"

compare() { # name of the data, recipe, types of storage, starts and inner steps of bilevel, options of every run
  local name=$1 recipe=$2 types=$3 starts=$4 inner=$5; shift 5
  run() { # end of the name of the row, its options
    "${python[@]}" -m benchmarks run "$recipe" "${every[@]}" --class_order null --stream_seed "$seed" --seed "$seed" \
      --exemplars_per_class 2 --adjust_old false "${@:2}" \
      --metrics nearest_exemplar_mean --loggers text --threads 1 --resume --out "$out/${name}_$1"
  }
  local every=("$@") ncm=(--objective ncm --outer_steps 20 --outer_lr 0.02)
  local bilevel=(--objective bilevel --outer_steps 20 --outer_lr 0.01 --inner_steps "$inner" --inner_lr 0.1)
  for seed in ${SEEDS:-0 1 2}; do
    for start in herding random; do
      unoptimized=(--selection "$start" --optimization null --adjust_old null --storage_dtype uint8)
      run "$start" "${unoptimized[@]}"
      for type in $types; do
        run "${start}_ncm_$type" --selection "$start" "${ncm[@]}" --storage_dtype "$type"
      done
      if [[ $starts == *$start* ]]; then
        run "${start}_bilevel_uint8" --selection "$start" "${bilevel[@]}" --storage_dtype uint8
      fi
    done
  done
}

for data in ${DATA:-mnist cifar100}; do
  case $data in
    mnist) compare mnist mnemonics_mnist "uint8 float32" "herding random" 5 --dataset-root "$mnist_root" --images_per_class 500 --train_epochs 2 "$@" ;;
    cifar100) compare cifar100 mnemonics_cifar100 uint8 herding 2 --dataset-root "$cifar100_root" --images_per_class 100 \
      --n_experiences 5 --first_experience_classes 20 --network resnet8 --train_epochs 8 --train_mb_size 64 --milestones "[]" \
      --optimization fast --finetuning_epochs 0 --distillation_weight 20 --precision bf16 --channels_last true "$@" ;;
  esac
done
"${python[@]}" scripts/both_classifiers.py "$out"
