"""Reinforcement learning: ``python -m train.rl``."""
