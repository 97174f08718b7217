"""Adapters of the limits port: where uses are counted."""
