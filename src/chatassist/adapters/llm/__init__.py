"""Chat models: vendors that speak the OpenAI protocol, and a scripted one that needs no vendor."""
