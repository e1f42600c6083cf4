"""Denoisers: functions of one noisy picture. `registry.denoiser` makes one by name, path or entry point."""
