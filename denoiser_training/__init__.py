"""Trains the denoisers, and the classifiers that stand in for a black box: `python -m denoiser_training`."""
