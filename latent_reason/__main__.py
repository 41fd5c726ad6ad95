"""``python -m latent_reason VERB``, which is also ``latent-reason VERB``."""

from .cli import main

if __name__ == "__main__":
    main()
