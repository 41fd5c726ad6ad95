"""Latents and tasks as pictures."""
