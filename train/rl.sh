#!/usr/bin/env bash
# Reinforcement learning:  bash train/rl.sh train/recipes/rl_frozenlake.yaml --init_from checkpoints/NAME/model --run_name my-run
# Several GPUs:            NPROC=8 bash train/rl.sh RECIPE --init_from ...
exec bash "$(dirname "$0")/launch.sh" train.rl "$@"
