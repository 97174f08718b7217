"""What the settings of AI vendors lead to: catalogue and file put together, and what stops the start."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from chatassist.adapters.catalogue import CATALOGUE
from chatassist.adapters.vendor import Auth, SpeechRoute, TranscriptionRoute, TranscriptionStyle, Vendor
from chatassist.adapters.vendor_errors import Kind
from chatassist.container.vendors import ConfiguredVendor, offers_of, title_model_of, vendors_of
from chatassist.settings import Settings
from chatassist.settings.vendors import Overrides, SpeechOverrides, TranscriptionOverrides

KEY = "sk-hidden-key"
DEEPSEEK: dict[str, Any] = {"vendor": "deepseek", "api_key": KEY, "model": "deepseek-v4-flash"}
Written = Callable[..., Settings]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("A_BROKEN_KEY", "hidden key")
    monkeypatch.setenv("AN_EMPTY_KEY", "")


def one(**llm: Any) -> ConfiguredVendor:
    (vendor,) = vendors_of(Settings.model_validate({"llm": llm}))
    return vendor


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Settings with a vendors file of these rows."""

    def write(*rows: str, **llm: Any) -> Settings:
        file = tmp_path / "vendors.toml"
        file.write_text("".join(f"[[vendor]]\n{row}\n" for row in rows), encoding="utf-8")
        return Settings.model_validate({"llm": {"vendors_file": str(file), **llm}})

    return write


def row(kind: str = "deepseek", *more: str, models: str = '[{ id = "m" }]', key: str = "A_KEY") -> str:
    return "\n".join([f'kind = "{kind}"', f"models = {models}", *([f'api_key_env = "{key}"'] if key else []), *more])


# --- One vendor -----------------------------------------------------------------------------------------------------


def test_nobody_is_asked_where_nothing_is_set() -> None:
    settings = Settings.model_validate({"llm": {}})
    assert vendors_of(settings) == ()
    assert [(offer.model, offer.default) for offer in offers_of(settings, ())] == [("scripted", True)]
    assert title_model_of(Settings.model_validate({"llm": {"vendor": "scripted", "title_model": "t"}}), ()) is None


def test_three_variables_are_enough() -> None:
    vendor = one(**DEEPSEEK)
    assert (vendor.name, vendor.access.base_url, vendor.access.api_key) == (
        "deepseek",
        "https://api.deepseek.com",
        KEY,
    )
    assert vendor.default.upstream == "deepseek-v4-flash"
    assert vendor.kind == CATALOGUE["deepseek"]
    assert KEY not in repr(vendor)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_every_kind_can_be_used_with_what_the_document_says(kind: str) -> None:
    known = CATALOGUE[kind]
    address = {} if known.base_url else {"base_url": "https://own.openai.azure.com/openai/v1"}
    key = {} if known.auth is Auth.NONE else {"api_key": KEY}
    vendor = one(vendor=kind, model="m", **address, **key)
    assert vendor.kind == known
    assert vendor.access.base_url == (known.base_url or "https://own.openai.azure.com/openai/v1")


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        ("https://api.deepseek.com/v1", "deepseek"),
        ("api.deepseek.com/v1", "deepseek"),
        (" api.groq.com ", "groq"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions", "qwen"),
        ("https://own.example.com/v1", "openai_compatible"),
        ("http://127.0.0.1:8000/v1", "openai_compatible"),
    ],
)
def test_a_vendor_is_known_by_its_address(base_url: str, kind: str) -> None:
    assert one(base_url=base_url, api_key=KEY, model="m").name == kind


def test_an_address_of_ones_own_is_used_and_repaired() -> None:
    assert one(**DEEPSEEK, base_url="http://127.0.0.1:9/v1/v1/chat/completions").access.base_url == (
        "http://127.0.0.1:9/v1"
    )


def test_servers_of_ones_own_need_no_key_and_show_one_that_is_set() -> None:
    given = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    assert one(**given).access.api_key == ""
    assert one(**given, api_key=KEY).access.api_key == KEY


@pytest.mark.parametrize(
    ("llm", "told"),
    [
        (
            {**DEEPSEEK, "vendor": "sk-hidden"},
            "CHATASSIST_LLM__VENDOR will not do: it has to be scripted, openai, azure",
        ),
        ({"vendor": "deepseek", "model": "m"}, "CHATASSIST_LLM__API_KEY is missing: DeepSeek answers nobody without"),
        ({"base_url": "https://api.deepseek.com", "model": "m"}, "CHATASSIST_LLM__API_KEY is missing: DeepSeek"),
        ({**DEEPSEEK, "vendor": "azure"}, "CHATASSIST_LLM__BASE_URL is missing: Azure OpenAI has no address"),
        ({"vendor": "openai_compatible", "model": "m"}, "CHATASSIST_LLM__BASE_URL is missing"),
        (
            {**DEEPSEEK, "vendor": "azure", "base_url": "https://hidden.openai.azure.com"},
            "CHATASSIST_LLM__BASE_URL will",
        ),
        ({**DEEPSEEK, "base_url": "https://hidden:hidden@a.example/v1"}, "CHATASSIST_LLM__BASE_URL will not do"),
        ({**DEEPSEEK, "base_url": "https://a.example/v1?key=hidden"}, "to be given as `query` of the overrides"),
        ({**DEEPSEEK, "base_url": "https://a.example/v1#hidden"}, "the address has a query or fragment"),
        *(
            ({**DEEPSEEK, "base_url": given}, "CHATASSIST_LLM__BASE_URL will not do: the address is none such as")
            for given in ("hidden", "http://127.0.0.1:99999999/hidden", "http://[::1/hidden", "http://a/hid\x00den")
        ),
        ({**DEEPSEEK, "vendor": "minimax", "thinking": True}, "CHATASSIST_LLM__THINKING is set, but MiniMax has no"),
        (
            {**DEEPSEEK, "overrides": {"codes": {"1": "hidden"}}},
            "CHATASSIST_LLM__OVERRIDES: `codes` has to mean one of",
        ),
        ({**DEEPSEEK, "overrides": {"transcription": {"hints": True}}}, "`transcription.model` is missing"),
        (
            {**DEEPSEEK, "overrides": {"speech": {"model": "hidden"}}},
            "`speech.model` and `speech.voice` are both needed",
        ),
        (
            {**DEEPSEEK, "overrides": {"min_temperature": 1.5, "max_temperature": 1}},
            "`max_temperature` is less than the lowest",
        ),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(llm: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is what is looked at
        one(**llm)
    assert told in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value), "never the value"


# --- Overriding -----------------------------------------------------------------------------------------------------


def test_any_field_can_be_overridden() -> None:
    said: dict[str, Any] = {
        "auth": "api_key",
        "paths": ["/v9"],
        "query": {"api-version": "2026-01-01"},
        "query_in": "/v9",
        "limit_parameter": "longest",
        "min_temperature": 0.1,
        "max_temperature": 0.9,
        "counts_usage": False,
        "usage_in": ["x_usage"],
        "thinking_on": {"think": 1},
        "thinking_off": {"think": 0},
        "thinking_fields": ["thoughts"],
        "extra": {"top_k": 5},
        "codes": {"E-Unpaid": "billing"},
        "errors_in": ["x_error"],
        "moderation_in": ["why"],
        "flags": {"bad": [True]},
        "at_once": 7,
        "transcription": {"model": "hears", "style": "chat", "hints": False, "max_seconds": 20},
        "speech": {"model": "speaks", "voice": "low", "format": "wav", "max_chars": 100},
    }
    assert set(said) == set(Overrides.model_fields), "all of them"
    kind = one(**DEEPSEEK, base_url="http://127.0.0.1:9/v9", overrides=said).kind
    assert (kind.auth, kind.paths, kind.query, kind.query_in) == (
        Auth.API_KEY,
        ["/v9"],
        {"api-version": "2026-01-01"},
        "/v9",
    )
    assert (kind.limit_parameter, kind.min_temperature, kind.max_temperature) == ("longest", 0.1, 0.9)
    assert (kind.counts_usage, kind.usage_in, kind.extra, kind.at_once) == (False, ["x_usage"], {"top_k": 5}, 7)
    assert (kind.thinking.on, kind.thinking.off, kind.thinking.fields) == ({"think": 1}, {"think": 0}, ["thoughts"])
    assert (kind.codes["e-unpaid"], kind.errors_in, kind.flags) == (Kind.BILLING, ["x_error"], {"bad": [True]})
    assert kind.moderation_in == ["why"]
    assert kind.transcription == TranscriptionRoute(
        model="hears", style=TranscriptionStyle.CHAT, hints=False, max_seconds=20
    )
    assert kind.speech == SpeechRoute(model="speaks", voice="low", format="wav", max_chars=100)


def test_whatever_a_vendor_is_can_be_overridden_but_for_what_it_is_called_and_found_by() -> None:
    own = {"name", "title", "base_url", "hosts", "models", "note"}
    said = {name.partition("_")[0] if name.startswith("thinking") else name for name in Overrides.model_fields}
    assert {each.name for each in fields(Vendor)} - own == said
    assert {each.name for each in fields(TranscriptionRoute)} == set(TranscriptionOverrides.model_fields)
    assert {each.name for each in fields(SpeechRoute)} == set(SpeechOverrides.model_fields)


def test_what_is_not_said_stays_and_what_is_added_replaces_nothing() -> None:
    kind = one(**{**DEEPSEEK, "vendor": "zhipu"}, overrides={"codes": {"9999": "rate"}, "query": {"a": "b"}}).kind
    known = CATALOGUE["zhipu"]
    assert kind.codes == {**known.codes, "9999": Kind.RATE}
    assert kind.thinking == known.thinking
    assert kind.transcription == known.transcription
    speech = one(**{**DEEPSEEK, "vendor": "zhipu"}, overrides={"speech": {"voice": "other"}}).kind.speech
    assert known.speech is not None
    assert speech == SpeechRoute(model=known.speech.model, voice="other", format="wav", max_chars=1024)


def test_a_limit_can_be_taken_away() -> None:
    kind = one(**{**DEEPSEEK, "vendor": "hunyuan"}, overrides={"at_once": 0, "limit_parameter": ""}).kind
    assert (kind.at_once, kind.limit_parameter) == (None, None)


def test_the_words_of_the_settings_are_those_of_the_catalogue() -> None:
    assert [one(**DEEPSEEK, overrides={"auth": each.value}).kind.auth for each in Auth] == list(Auth)
    for style in TranscriptionStyle:
        assert one(**DEEPSEEK, overrides={"transcription": {"model": "m", "style": style.value}}).kind.transcription
    for kind in Kind:
        assert one(**DEEPSEEK, overrides={"codes": {"x": kind.name.lower()}}).kind.codes["x"] is kind


# --- Several vendors ------------------------------------------------------------------------------------------------

MODELS = '[{ id = "shared", name = "共有" }, { id = "own" }, { id = "quiet", public = false }]'
SPARE = '[{ id = "fast", upstream = "qwen-flash" }, { id = "shared", upstream = "ds", default = true }]'


def test_rows_become_vendors_in_their_order(written: Written) -> None:
    first, second = vendors_of(
        written(row(models=MODELS), row("qwen", 'name = "spare"', "thinking = false", "at_once = 3", models=SPARE))
    )
    assert (first.name, first.access.base_url, first.access.api_key) == ("deepseek", "https://api.deepseek.com", KEY)
    assert (first.default.id, first.default.upstream, first.thinking) == ("shared", "shared", None)
    assert (second.name, second.kind.name, second.kind.at_once, second.thinking) == ("spare", "qwen", 3, False)
    assert (second.default.id, second.default.upstream) == ("shared", "ds")


def test_public_models_are_offered_once_each_and_the_first_vendors_default_is_everybodys(written: Written) -> None:
    settings = written(row(models=MODELS), row("qwen", models=SPARE))
    offers = offers_of(settings, vendors_of(settings))
    assert [(offer.model, offer.name, offer.default) for offer in offers] == [
        ("shared", "共有", True),
        ("own", "own", False),
        ("fast", "fast", False),
    ]


def test_the_default_is_the_first_public_model_unless_another_is_marked(written: Written) -> None:
    quiet = '[{ id = "quiet", public = false }, { id = "loud" }]'
    marked = '[{ id = "a" }, { id = "b", default = true }]'
    hidden = '[{ id = "x", public = false }]'
    vendors = vendors_of(written(row(models=quiet), row("qwen", models=marked), row("ollama", models=hidden, key="")))
    assert [vendor.default.id for vendor in vendors] == ["loud", "b", "x"]


@pytest.mark.parametrize(
    ("title_model", "found"), [("quiet", ("deepseek", "quiet")), ("shared", ("deepseek", "shared"))]
)
def test_titles_are_made_by_a_model_of_the_file(written: Written, title_model: str, found: tuple[str, str]) -> None:
    settings = written(row(models=MODELS), row("qwen", models=SPARE), title_model=title_model)
    vendor, model = title_model_of(settings, vendors_of(settings)) or (None, "")
    assert (vendor and vendor.name, model) == found


def test_titles_are_asked_for_where_the_model_is_under_its_name_there(written: Written) -> None:
    settings = written(row(models=MODELS), row("qwen", models=SPARE), title_model="fast")
    vendor, model = title_model_of(settings, vendors_of(settings)) or (None, "")
    assert (vendor and vendor.name, model) == ("qwen", "qwen-flash")


def test_a_title_model_that_is_not_in_the_file(written: Written) -> None:
    settings = written(row(models=MODELS), title_model="hidden")
    with pytest.raises(ValueError, match=r"^CHATASSIST_LLM__TITLE_MODEL has to be the id of a model in [^.]*\.$"):
        title_model_of(settings, vendors_of(settings))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "CHATASSIST_LLM__VENDORS_FILE will not do: it holds no [[vendor]] row"),
        ([row(), 'kind = "hidden word"'], "CHATASSIST_LLM__VENDORS_FILE will not do: vendor 2: `kind` must be a word"),
        ([row("scripted")], "vendor 1: `kind` will not do: it has to be openai, azure"),
        ([row(), row("sk-hidden")], "vendor 2: `kind` will not do: it has to be openai, azure"),
        ([row(), row("sk-hidden", 'name = "spare"')], "vendor 2 (spare): `kind` will not do: it has to be openai"),
        ([row("ollama", 'base_url = "hidden"')], "vendor 1 (ollama): `base_url` will not do: the address is none such"),
        ([row(key="")], "vendor 1 (deepseek): `api_key_env` is missing: DeepSeek answers nobody without a key"),
        ([row(key="hidden")], "`api_key_env` names a variable that is set neither in the environment nor in .env"),
        ([row("ollama", key="hidden")], "`api_key_env` names a variable that is set neither"),
        ([row(key="AN_EMPTY_KEY")], "`api_key_env` names a variable that is set neither"),
        ([row(key="A_BROKEN_KEY")], "`api_key_env` names a variable that will not do: it must be visible ASCII"),
        ([row("azure")], "vendor 1 (azure): `base_url` is missing: Azure OpenAI has no address"),
        ([row("azure", 'base_url = "https://hidden.openai.azure.com"')], "vendor 1 (azure): `base_url` will not do"),
        ([row("minimax", "thinking = false")], "vendor 1 (minimax): `thinking` is set, but MiniMax has no switch"),
        ([row("qwen", 'codes = { "1" = "hidden" }')], "vendor 1 (qwen): `codes` has to mean one of auth, config"),
        ([row(models='[{ id = "hidden", public = false }]')], "its default model answers whoever names none, so"),
        (
            [row(models='[{ id = "m" }, { id = "hidden", public = false, default = true }]')],
            "its default model answers whoever names none, so it has to be public",
        ),
    ],
)
def test_a_row_that_cannot_work_is_told_in_a_sentence(written: Written, rows: Sequence[str], told: str) -> None:
    with pytest.raises(ValueError, match=r"^CHATASSIST_LLM__VENDORS_FILE") as caught:
        vendors_of(written(*rows))
    assert told in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value), "never the value"
