"""Speech to text: at any vendor that speaks the OpenAI protocol (as a form or by chat), by Whisper here, or none."""
