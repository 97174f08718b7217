"""Speech to text: Whisper at any vendor that speaks the OpenAI protocol, Whisper on this machine, or none."""
