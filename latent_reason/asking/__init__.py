"""Questions about one's own pictures: answers with their sketches, what their latents say, and how they were drawn."""
