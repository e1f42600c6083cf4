"""Classifiers that can only be asked, and what becomes of their replies."""
