"""Puts `train()` on many machines: the command line, Ray Train, Ray jobs."""
