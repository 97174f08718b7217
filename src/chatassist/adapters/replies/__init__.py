"""Feeds of replies."""
