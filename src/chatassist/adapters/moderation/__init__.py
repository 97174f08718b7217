"""Adapters of the moderation port: who judges texts."""
