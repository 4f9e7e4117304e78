#!/usr/bin/env bash
# Scaled down: MNIST and CIFAR-10 in five experiences of two classes, 1,000 images a class, no task labels: ReReLRP
# beside Avalanche's Naive, EWC, LwF and iCaRL.
#
#     bash scripts/task_recognition.sh --mnist-root DIR --cifar10-root DIR [further options of every run]
#
# iCaRL keeps as many images as ReReLRP keeps bytes between experiences: without its forests, which can be made anew
# from the rest (icarl), and with them (icarl_all). Three seeds, one thread each: about an hour. SEEDS="0 1" takes
# fewer, DATA="mnist" one stream. A second call goes on where the first was stopped. Results are in
# results/task_recognition (OUT); at the end, the table, and accuracy and forgetting with the experience known
# (task-aware) and unknown (task-agnostic).
roots="mnist cifar10"
source "$(dirname "${BASH_SOURCE[0]}")/comparison.sh"

run() { # name of the row, recipe, its options
  "${python[@]}" -m benchmarks run "$2" "${@:3}" --metrics task_recognition --loggers text --threads 1 --resume --out "$out/$1"
}

compare() { # name of the data, ReReLRP's recipe and number of its options, those, images and rate of iCaRL, options of every run
  local name=$1 recipe=$2 n=$3; shift 3
  local own=("${@:1:n}"); shift "$n"
  local few=$1 many=$2 rate=$3; shift 3
  for seed in ${SEEDS:-0 1 2}; do
    local every=("$@" --class_order natural --images_per_class 1000 --seed "$seed" --eval-every "${EVERY:-1}")
    run "${name}_rerelrp" "$recipe" "${own[@]}" "${every[@]}"
    run "${name}_naive" naive "${every[@]}"
    run "${name}_ewc" ewc "${every[@]}"
    run "${name}_lwf" lwf "${every[@]}"
    run "${name}_icarl" icarl --exemplars "$few" "${every[@]}" --lr "$rate"
    run "${name}_icarl_all" icarl --exemplars "$many" "${every[@]}" --lr "$rate"
  done
}

for data in ${DATA:-mnist cifar10}; do
  case $data in
    mnist) compare mnist rerelrp_mnist 0 410 7800 0.2 --stream split_mnist --dataset-root "$mnist_root" \
      --network small_cnn --feature_size 256 --train_epochs 2 --train_mb_size 64 --lr 0.02 "$@" ;;
    cifar10) compare cifar10 rerelrp_cifar10 16 --acc_drop 5 --patience 20 --reference_per_class 134 --features 100 --num_trees 100 \
      --plateau_patience null --augmentation null --evaluate_unpruned_first false \
      520 2100 0.02 --stream split_cifar10 --dataset-root "$cifar10_root" \
      --network cifarnet --train_epochs 15 --train_mb_size 64 --lr 0.02 --momentum 0.9 "$@" ;;
  esac
done
"${python[@]}" -m benchmarks table "$out"
"${python[@]}" scripts/task_accuracies.py "$out"
