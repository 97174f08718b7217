"""How often somebody may do something."""

from abc import ABC, abstractmethod
from enum import StrEnum


class Rule(StrEnum):
    """What is counted: the first per client address, the others per user."""

    LOGINS = "logins"
    SENDS = "sends"
    READS = "reads"
    SPEECH = "speech"


class Limiter(ABC):
    """Counts, atomically, in a moving window of a minute."""

    @abstractmethod
    async def hit(self, rule: Rule, subject: str) -> None:
        """Count one use. Raises the rule's Limited, whose retry_after is enough; a refused use is not counted."""
