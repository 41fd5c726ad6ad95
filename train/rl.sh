#!/usr/bin/env bash
# Reinforcement learning:  bash train/rl.sh train/recipes/rl_frozenlake.yaml --init checkpoints/NAME/model --run my-run
# Several GPUs:            NPROC=8 bash train/rl.sh RECIPE --init ...
exec bash "$(dirname "$0")/launch.sh" train.rl "$@"
