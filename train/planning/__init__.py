"""What one training step needs: memory and arithmetic of a recipe, without its weights and without its GPU."""
