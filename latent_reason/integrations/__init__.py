"""Adapters for evaluation harnesses: lmms-eval (by an entry point) and VLMEvalKit (by two lines in its config)."""
