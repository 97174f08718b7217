"""chatassist: the backend of an AI chat assistant for a WeChat mini-program."""

__version__ = "0.1.0"
