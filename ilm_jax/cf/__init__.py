"""Ways to turn interactions into vectors."""
