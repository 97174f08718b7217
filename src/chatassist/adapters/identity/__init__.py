"""Adapters of the identity port: who vouches for people, and how a login becomes a token."""
