"""Refusals of our own wrappers: no vendor was called, so nothing was spent, and nothing is known of a vendor."""

from chatassist.domain.errors import LlmMisconfigured, LlmOverloaded, LlmUnavailable, ModelFailed


class NotCalled(ModelFailed):
    """A wrapper refused before the vendor was called. Always one of ModelFailed's leaves besides."""


class QueueFull(NotCalled, LlmOverloaded):
    """As many replies as allowed are being made by this vendor, and as many as allowed wait for it."""


class LeftAlone(NotCalled):
    """The vendor failed too often: it is left alone for `retry_after` seconds. Users are told what they were before."""


class BreakerOpen(LeftAlone, LlmUnavailable):
    """It is left alone because it was down, silent or unpaid."""


class OverloadLasts(LeftAlone, LlmOverloaded):
    """It is left alone because it limits us."""


class RefusalLasts(LeftAlone, LlmMisconfigured):
    """It is left alone because it refused our key."""
