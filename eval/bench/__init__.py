"""Speed as ratios: what is counted is exact, what is timed takes turns. The command is ``python -m eval.bench``."""
