"""The tests that every method, task and backbone must pass. They are part of the package, so you can run them on your
own components.

    python -m latent_reason.contracts --method my_pkg.my_method
    python -m latent_reason.contracts --task my_pkg.tasks:MyTask -k "read_back or gold"
    python -m latent_reason.contracts --backbone gemma3

Without an option they run on all components of latent_reason. Other arguments are passed to pytest. Requires pytest and
hypothesis.
"""
