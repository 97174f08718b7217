"""Text to speech: at any vendor that speaks the OpenAI protocol, or a tone that stands in for a voice."""
