"""Test-time methods on a trained model: what is fed back, optimised or searched while it answers. Nothing is trained."""
