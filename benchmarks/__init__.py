"""The yardstick: what a turn costs this service, as a ratio to a floor that does the same outside work by hand.

`python -m benchmarks` runs it. Nothing here is part of the service, and no figure is a gate.
"""
