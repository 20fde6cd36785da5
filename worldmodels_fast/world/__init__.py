"""A trained world: V, M, C and first latents; its agent, its dreams, and the bundled ones."""
