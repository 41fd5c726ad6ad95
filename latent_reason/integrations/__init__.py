"""Adapters of evaluation harnesses: lmms-eval finds its own by an entry point, VLMEvalKit takes two lines."""
