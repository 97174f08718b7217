"""What the domain's ports are in the real world: one folder per port, one file per technology."""
