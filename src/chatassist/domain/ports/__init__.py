"""What the domain needs from the world: abstract roles, each with its values beside it."""
