"""Attacks by name. Those of the library of `art_library`, and three of this project's own."""
