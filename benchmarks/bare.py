"""The service as it is, but for its chat model: the vendor's adapter alone, with nothing around it.

What a turn costs beside it is what failover, breaker and cap cost.
"""

from collections.abc import Sequence

from dependency_injector import providers

from chatassist.container.models import bare_model
from chatassist.container.vendors import ConfiguredVendor
from chatassist.container.wiring import Container
from chatassist.domain.ports.llm import ChatModel
from chatassist.entrypoints.cli import main
from chatassist.settings import Settings


def _bare(settings: Settings, vendors: Sequence[ConfiguredVendor]) -> ChatModel:
    [vendor] = vendors
    return bare_model(settings.llm, vendor, vendor.default.upstream, at_once=settings.llm.max_connections)


MODEL = providers.Singleton(_bare, Container.settings, Container.vendors)

if __name__ == "__main__":
    Container.model.override(MODEL)
    main()
