"""What the assistant is and does, in plain Python: no framework, no driver, no vendor is known here."""
