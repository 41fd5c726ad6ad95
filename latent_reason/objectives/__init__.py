"""What training adds to a model: losses, latent inputs, attention masks, latent policies."""
