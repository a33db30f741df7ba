#!/usr/bin/env bash
# Zero-shot and LoRA accuracy on a folder of photos over three seeds: benchmarks/dogs10.sh DATA MODEL
# DATA holds train/, val/ and test/; MODEL is a hub name or a folder. Runs go to outputs/benchmark.
set -euo pipefail
data=$1 model=$2
for seed in 0 1 2; do
    run=outputs/benchmark/seed-$seed
    cliptune train --config code/02-fine-tuning/lora/config.yaml --data-dir "$data" \
        --output-dir "$run" --set model.name="$model" --set seed="$seed" \
        --set training.num_epochs=6 --set training.early_stopping.enabled=false --overwrite
    # The last epoch: val is then used for nothing, and the figure is that of a fixed recipe.
    cliptune evaluate --checkpoint "$run/checkpoint-epoch-6" --data-dir "$data" --split test \
        --output-dir "outputs/benchmark/evaluation-$seed"
done
