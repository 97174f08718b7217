"""How a test of an adapter says whom it calls: at an address, with a key, as the kind of vendor it is taken for."""

from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.vendor import Access


def calling(base_url: str, key: str = "", kind: str = "openai_compatible") -> Access:
    return Access(vendor=CATALOGUE[kind], base_url=base_url, api_key=key)
