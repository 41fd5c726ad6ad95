"""The tests that every method, task and backbone passes, shipped so that they can be run on your own.

    python -m latent_reason.contracts --method my_pkg.my_method
    python -m latent_reason.contracts --task my_pkg.tasks:MyTask -k "read_back or gold"
    python -m latent_reason.contracts --backbone gemma3

Without an option they run on all that latent_reason has. Other arguments are pytest's. Needs pytest and hypothesis.
"""
