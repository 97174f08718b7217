"""What a database error means: worth a repeat, the database being away, a value in use, or a defect of ours."""

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from chatassist.domain.errors import StoreUnavailable

# MySQL's and MariaDB's codes. After these the unit did not happen, and may well happen next time.
_COLLIDED = {
    1205,  # waited too long for a lock; only the statement was undone
    1213,  # deadlock; the transaction was undone
    3572,  # NOWAIT met a lock
    1040,  # too many connections
}
_SHUTTING_DOWN = 1053  # SQLAlchemy itself knows 2006, 2013, 2014, 1927 and 4031 as lost connections
_MISSING = {1049, 1146}  # no such database, no such table
_DUPLICATE = 1062
_SENTENCES = {
    1044: "the account may not use this database",
    1045: "the database refuses the account or its password",
    1142: "the account lacks a right on the database's tables",
    2003: "the database server does not answer at its address",
}


def code_of(error: DBAPIError) -> int | None:
    """Return the server's number for an error; SQLite gives none."""
    given = error.orig.args[0] if error.orig and error.orig.args else None
    return given if isinstance(given, int) else None


def is_lost(error: DBAPIError | OSError) -> bool:
    """Tell whether the connection died under the statement."""
    return isinstance(error, OSError) or error.connection_invalidated or code_of(error) == _SHUTTING_DOWN


def is_repeatable(error: DBAPIError | OSError) -> bool:
    """Tell whether the same unit may succeed when it is run again, nothing of it having happened."""
    return is_lost(error) or (isinstance(error, DBAPIError) and code_of(error) in _COLLIDED)


def is_duplicate(error: IntegrityError, *columns: str) -> bool:
    """Tell whether a unique value exists already; with `columns`, whether it is the one whose name holds them all."""
    text = str(error.orig)
    duplicate = code_of(error) == _DUPLICATE or text.startswith("UNIQUE constraint failed")
    return duplicate and all(column in text for column in columns)


def is_defect(error: DBAPIError | OSError) -> bool:
    """Tell whether we sent something wrong: such an error goes on as it is, to be loud."""
    return isinstance(error, DataError | IntegrityError | ProgrammingError) and code_of(error) not in _MISSING


def away(error: Exception) -> StoreUnavailable:
    """Return what the domain calls an error; names the kind and number, never the statement or its values."""
    number = code_of(error) if isinstance(error, DBAPIError) else None
    if number in _MISSING:
        return StoreUnavailable("the database or one of its tables is missing: run `chatassist migrate`")
    if number in _SENTENCES:
        return StoreUnavailable(f"{_SENTENCES[number]} ({number})")
    return StoreUnavailable(f"the database failed: {type(error).__name__} {number or ''}".rstrip())
