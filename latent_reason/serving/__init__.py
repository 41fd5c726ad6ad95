"""A chat endpoint in the style of OpenAI's: ``latent-reason serve CHECKPOINT``. Needs the extra ``serve``."""
