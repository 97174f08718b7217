"""Which AI vendors the settings mean: rows of the catalogue with what an operator says otherwise, keys and models.

What will not do is a ValueError with one sentence, which names the setting, or the file's row and key, and no value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from chatassist.adapters.catalogue import CATALOGUE, kind_of
from chatassist.adapters.vendor import Access, Auth, Vendor
from chatassist.adapters.vendor_address import repaired
from chatassist.container.overriding import overridden
from chatassist.container.secrets import secret_of
from chatassist.domain.ports.llm import Offer
from chatassist.settings import Settings
from chatassist.settings.kinds import header_secret
from chatassist.settings.llm import SCRIPTED, LlmSettings
from chatassist.settings.vendors import Overrides, VendorRow, looked_up, read_vendors_file

Called = Callable[[str], str]
"""Returns what the operator calls something: a variable, or a key of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of a vendor. `id`: what users name; `upstream`: what the vendor calls it; `public`: users may name it."""

    id: str
    upstream: str
    name: str
    public: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredVendor:
    """A vendor as this service uses it. `default`: the model for whoever names none that it has."""

    name: str
    access: Access
    models: Sequence[Model]
    default: Model
    thinking: bool | None = None

    @property
    def kind(self) -> Vendor:
        """The row of the catalogue, with all that is said otherwise."""
        return self.access.vendor

    def find(self, model_id: str) -> Model | None:
        """Return a model by what users call it."""
        return next((model for model in self.models if model.id == model_id), None)


def vendors_of(settings: Settings) -> Sequence[ConfiguredVendor]:
    """Return the vendors in the order in which they are asked; none where the model is scripted. Raises ValueError."""
    llm = settings.llm
    if llm.is_scripted:
        return ()
    if llm.vendors_file is None:
        return (_single(llm),)
    try:
        rows = read_vendors_file(llm.vendors_file, CATALOGUE)
    except ValueError as exc:
        raise ValueError(f"CHATASSIST_LLM__VENDORS_FILE will not do: {exc}.") from exc
    vendors = [_from_row(row, place) for place, row in enumerate(rows, start=1)]
    if not vendors[0].default.public:
        raise ValueError(
            f"CHATASSIST_LLM__VENDORS_FILE: vendor 1 ({vendors[0].name}): its default model answers whoever names none,"
            " so it has to be public."
        )
    return vendors


def offers_of(settings: Settings, vendors: Sequence[ConfiguredVendor]) -> Sequence[Offer]:
    """Return what users may name, each model once; the first vendor's default is everybody's."""
    if settings.llm.is_scripted:
        return (Offer(model=SCRIPTED, name=SCRIPTED, default=True),)
    public = {model.id: model for vendor in reversed(vendors) for model in vendor.models if model.public}
    order = dict.fromkeys(model.id for vendor in vendors for model in vendor.models if model.public)
    default = vendors[0].default.id
    return [Offer(model=each, name=public[each].name, default=each == default) for each in order]


def title_model_of(settings: Settings, vendors: Sequence[ConfiguredVendor]) -> tuple[ConfiguredVendor, str] | None:
    """Return who makes titles, and what it calls its model for them; None where none is set. Raises ValueError."""
    wanted = settings.llm.title_model
    if wanted is None or not vendors:
        return None
    if settings.llm.vendors_file is None:
        return vendors[0], wanted
    for vendor in vendors:
        if model := vendor.find(wanted):
            return vendor, model.upstream
    raise ValueError("CHATASSIST_LLM__TITLE_MODEL has to be the id of a model in CHATASSIST_LLM__VENDORS_FILE.")


def _single(llm: LlmSettings) -> ConfiguredVendor:
    def called(key: str) -> str:
        return f"CHATASSIST_LLM__{key.upper()}"

    if llm.vendor is None:
        kind = kind_of(llm.base_url or "")
    elif llm.vendor in CATALOGUE:
        kind = CATALOGUE[llm.vendor]
    else:
        raise ValueError(f"{called('vendor')} will not do: it has to be {_names(SCRIPTED)}.")
    try:
        kind = overridden(kind, llm.overrides or Overrides())
    except ValueError as exc:
        raise ValueError(f"{called('overrides')}: {exc}.") from exc
    access = _access(kind, llm.base_url, llm.api_key, called)
    _check_thinking(kind, llm.thinking, called)
    name = llm.model or ""
    model = Model(id=name, upstream=name, name=name)
    return ConfiguredVendor(name=kind.name, access=access, models=(model,), default=model, thinking=llm.thinking)


def _from_row(row: VendorRow, place: int) -> ConfiguredVendor:
    named = row.name or row.kind in CATALOGUE  # what is no kind may be a key in the wrong place
    where = f"CHATASSIST_LLM__VENDORS_FILE: vendor {place}{f' ({row.called})' if named else ''}"

    def called(key: str) -> str:
        return f"{where}: `{'api_key_env' if key == 'api_key' else key}`"

    if row.kind not in CATALOGUE:
        raise ValueError(f"{called('kind')} will not do: it has to be {_names()}.")
    try:
        kind = overridden(CATALOGUE[row.kind], row)
    except ValueError as exc:
        raise ValueError(f"{where}: {exc}.") from exc
    access = _access(kind, row.base_url, _key_of(row, called), called)
    _check_thinking(kind, row.thinking, called)
    models = [
        Model(id=one.id, upstream=one.upstream or one.id, name=one.name or one.id, public=one.public)
        for one in row.models
    ]
    marked = [model for model, one in zip(models, row.models, strict=True) if one.default]
    default = next(iter([*marked, *(model for model in models if model.public), *models]))
    return ConfiguredVendor(name=row.called, access=access, models=models, default=default, thinking=row.thinking)


def _key_of(row: VendorRow, called: Called) -> SecretStr | None:
    if row.api_key_env is None:
        return None
    key = looked_up(row.api_key_env)
    if not key:  # what stands there may be the key itself, so it is not repeated
        raise ValueError(f"{called('api_key')} names a variable that is set neither in the environment nor in .env.")
    try:
        return header_secret(SecretStr(key))
    except ValueError as exc:
        raise ValueError(f"{called('api_key')} names a variable that will not do: it {exc}.") from exc


def _access(kind: Vendor, base_url: str | None, key: SecretStr | None, called: Called) -> Access:
    address = base_url or kind.base_url
    if address is None:
        raise ValueError(f"{called('base_url')} is missing: {kind.title} has no address that is the same for all.")
    if key is None and kind.auth is not Auth.NONE:
        raise ValueError(f"{called('api_key')} is missing: {kind.title} answers nobody without a key.")
    try:
        return Access(vendor=kind, base_url=repaired(kind, address), api_key=secret_of(key))
    except ValueError as exc:
        raise ValueError(f"{called('base_url')} will not do: {exc}.") from exc


def _check_thinking(kind: Vendor, wanted: bool | None, called: Called) -> None:
    if wanted is not None and kind.thinking.on is None and kind.thinking.off is None:
        raise ValueError(f"{called('thinking')} is set, but {kind.title} has no switch for it: unset it.")


def _names(*more: str) -> str:
    *names, last = [*more, *CATALOGUE]
    return f"{', '.join(names)} or {last}"
