"""chatassist: the backend of an AI chat assistant for a WeChat mini-program."""
