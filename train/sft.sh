#!/usr/bin/env bash
# Train a method from a recipe:  bash train/sft.sh train/recipes/frozenlake_modal_mixed.yaml --run_name my-run
# Several GPUs:                  NPROC=8 bash train/sft.sh RECIPE
exec bash "$(dirname "$0")/launch.sh" train.sft "$@"
