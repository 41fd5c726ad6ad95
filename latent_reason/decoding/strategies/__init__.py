"""Strategies of decoding that need no training."""
