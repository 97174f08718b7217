"""The doors: ways in from outside, which translate and decide nothing."""
