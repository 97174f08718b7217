"""The endpoints, one file per area."""
