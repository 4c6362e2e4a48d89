"""Measurements of what decides the performance: the rival beside us, in the same run."""
