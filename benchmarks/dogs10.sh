#!/usr/bin/env bash
# Zero-shot and LoRA accuracy on a folder of photos over three seeds:
#   benchmarks/dogs10.sh DATA MODEL [NAME [OPTIONS of cliptune train ...]]
# DATA holds train/, val/ and test/; MODEL is a hub name or a folder. Runs go to
# outputs/benchmark/NAME. Settings that differ from the default are given as options:
#   benchmarks/dogs10.sh DATA MODEL patches --set model.patch_dropout=0.5
set -euo pipefail
data=$1 model=$2 name=${3:-default}
for seed in ${SEEDS:-0 1 2}; do
    run=outputs/benchmark/$name/seed-$seed
    cliptune train --config code/02-fine-tuning/lora/config.yaml --data-dir "$data" \
        --output-dir "$run" --set model.name="$model" --set seed="$seed" \
        --set training.num_epochs=6 --set training.early_stopping.enabled=false --overwrite \
        --set output.log_dir="$run/logs" "${@:4}"
    # The last epoch: val is then used for nothing, and the figure is that of a fixed recipe.
    cliptune evaluate --checkpoint "$run/checkpoint-epoch-6" --data-dir "$data" --split test \
        --output-dir "$run/evaluation"
done
