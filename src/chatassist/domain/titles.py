"""What a session is called in a list before anybody names it, and what is shown below that."""

TITLE_CHARS = 60
_FIRST_WORDS = 30
_PREVIEW = 100


def first_words(question: str) -> str:
    """Return the title that a session gets from its first question: one line of at most 30 characters."""
    return _one_line(question, _FIRST_WORDS)


def preview_of(text: str) -> str:
    """Return what a list of sessions shows of a message: one line of at most 100 characters."""
    return _one_line(text, _PREVIEW)


def _one_line(text: str, most: int) -> str:
    """Return the beginning of a text in one line; looks at no more of it than can be needed."""
    return " ".join(text[: 4 * most].split())[:most].rstrip()
