"""Servers that the gateway and the simulator have in common."""
