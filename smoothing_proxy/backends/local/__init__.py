"""Classifiers that run in this process, asked as if they were far away."""
