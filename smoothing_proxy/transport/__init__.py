"""How requests travel: how often, how fast, and when not to ask at all."""
