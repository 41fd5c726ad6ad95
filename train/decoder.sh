#!/usr/bin/env bash
# Train a sketch decoder:  bash train/decoder.sh train/recipes/decoder.yaml --init_from checkpoints/NAME/model
# Several GPUs:            NPROC=8 bash train/decoder.sh RECIPE
exec bash "$(dirname "$0")/launch.sh" train.decoder "$@"
