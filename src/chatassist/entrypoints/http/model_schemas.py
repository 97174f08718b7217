"""What goes over the wire about models; the rules of `schemas` hold here too."""

from collections.abc import Sequence

from chatassist.domain.ports.llm import Offer
from chatassist.entrypoints.http.schemas import Wire


class ModelOut(Wire):
    """A model that a send may name as `model`. `default`: it answers where none is named and none was chosen."""

    model: str
    name: str
    default: bool


class ModelsOut(Wire):
    """All models, in the operator's order: a list like any other, of one page."""

    items: list[ModelOut]
    next_cursor: None = None
    has_more: bool = False


def models_out(offers: Sequence[Offer]) -> ModelsOut:
    """Return the wire form of the operator's list."""
    items = [ModelOut(model=offer.model, name=offer.name, default=offer.default) for offer in offers]
    return ModelsOut(items=items)
