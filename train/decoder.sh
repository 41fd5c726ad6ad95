#!/usr/bin/env bash
# Train a sketch decoder for a frozen eye:  bash train/decoder.sh train/recipes/decoder.yaml --init checkpoints/X/model
# Several GPUs:                             NPROC=8 bash train/decoder.sh RECIPE
exec bash "$(dirname "$0")/launch.sh" train.decoder "$@"
