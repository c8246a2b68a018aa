"""Measurements outside the pipeline: training speed, memory and loss curves. README.md lists the commands."""
