"""Checkpoints out: an exported folder, the checks it has to pass, and the way to the Hub."""
