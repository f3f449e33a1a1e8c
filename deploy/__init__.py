"""How the system is run: images, configuration of its surroundings, and a stack without Docker."""
