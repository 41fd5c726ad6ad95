"""Reinforcement learning: rollouts, rule-based rewards, and policy updates.

    python -m train.rl --config train/recipes/rl_frozenlake.yaml --init_from CHECKPOINT --run_name my-run

Text tokens and the decision to sketch are actions. ``rl.latent_policy`` sets whether latents are actions too
(latent_reason/objectives/latent_policies). ``rl.loss_type`` names a row of the table in
latent_reason/objectives/policy_gradient.py. Reward models are not supported.
"""

from ..config import RLTrainingConfig, answer_help

if __name__ == "__main__":
    answer_help(RLTrainingConfig, __doc__)

    from .trainer import main  # it imports torch

    main()
