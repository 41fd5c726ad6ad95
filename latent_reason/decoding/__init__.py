"""Batched, cached decoding of text and latents."""
