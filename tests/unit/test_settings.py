"""What an operator may set, and what stops the start: in one sentence that names the setting and never its value."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chatassist.settings import PREFIX, SQLITE_DEFAULT, Settings
from chatassist.settings.names import unknown_variables, variables
from chatassist.settings.vendors import key_variables

STRONG = "k3Yq9ZrT5vXw1LmNpB7dFhJcA2sGuE8o"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def production(**given: Any) -> dict[str, Any]:
    return {
        "env": "production",
        "token": {"secret": STRONG},
        "wechat": {"appid": "wx1", "secret": "s"},
        "llm": {"base_url": "https://api.example.com/v1", "api_key": "sk-hidden", "model": "m"},
        **given,
    }


def test_nothing_needs_to_be_set_on_a_laptop() -> None:
    settings = Settings()
    assert settings.database.url == SQLITE_DEFAULT
    assert settings.local_login
    assert settings.llm.is_scripted
    assert settings.door.docs


def test_the_fixed_names_and_defaults_of_the_contract() -> None:
    settings = Settings()
    assert (settings.http.host, settings.http.port, settings.http.reply_wait, settings.http.drain_seconds) == (
        "127.0.0.1",
        8000,
        50,
        30,
    )
    assert settings.token.lifetime == 604_800
    assert settings.wechat.base_url == "https://api.weixin.qq.com"
    assert (settings.llm.idle_timeout, settings.llm.deadline) == (30, 120)
    assert (settings.llm.context_tokens, settings.llm.max_output_tokens) == (6000, 2000)
    assert (settings.asr.engine, settings.asr.deadline) == ("none", 45)
    limits = settings.limits
    assert (limits.content_chars, limits.body_bytes, limits.audio_bytes) == (8000, 262_144, 25_165_824)
    assert (limits.sends_per_minute, limits.logins_per_minute, limits.reads_per_minute) == (20, 120, 300)
    assert limits.speech_per_minute == 20


def test_variables_come_from_the_environment_and_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{PREFIX}HTTP__PORT=8100\n{PREFIX}LLM__MODEL=\n")
    monkeypatch.setenv(f"{PREFIX}HTTP__TRUSTED_PROXIES", "10.1.2.3/8, 192.168.1.1")
    settings = Settings()
    assert settings.http.port == 8100
    assert settings.http.trusted_proxies == ("10.0.0.0/8", "192.168.1.1/32")
    assert settings.llm.model is None, "empty is not set"


def test_production_with_everything_given_starts() -> None:
    settings = Settings(**production())
    assert settings.is_production
    assert not settings.local_login
    assert not settings.door.docs


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (production(token={}), "CHATASSIST_TOKEN__SECRET"),
        (production(token={"secret": ""}), "CHATASSIST_TOKEN__SECRET"),
        (production(wechat={}), "CHATASSIST_WECHAT__APPID"),
        (production(wechat={"appid": "wx1"}), "CHATASSIST_WECHAT__SECRET"),
        (production(wechat={"local_login": True}), "CHATASSIST_WECHAT__LOCAL_LOGIN"),
        (production(llm={}), "CHATASSIST_LLM__VENDOR=scripted"),
        ({"wechat": {"appid": "wx1", "secret": "hidden", "local_login": True}}, "CHATASSIST_WECHAT__LOCAL_LOGIN"),
        ({"wechat": {"local_login": False}}, "CHATASSIST_WECHAT__APPID"),
        ({"http": {"host": "192.0.2.1"}}, "CHATASSIST_HTTP__HOST"),
        ({"llm": {"api_key": "sk-hidden"}}, "CHATASSIST_LLM__MODEL"),
        ({"llm": {"vendor": "openai_compatible"}}, "CHATASSIST_LLM__BASE_URL"),
        ({"llm": {"title_model": "hidden"}}, "CHATASSIST_LLM__BASE_URL"),
        ({"llm": {"title_model": "hidden words"}}, "llm.title_model"),
        ({"llm": {"title_model": "t" * 129}}, "must be 1 to 128 characters that can be seen, without blanks"),
        ({"llm": {"vendor": "vllm", "model": "hidden" * 22}}, "llm.model"),
        ({"llm": {"vendor": "vllm", "model": "hidden\x01"}}, "must be 1 to 128 characters that can be seen"),
        ({"llm": {"vendor": "vllm", "model": "hidden\u200b"}}, "llm.model"),
        ({"asr": {"engine": "whisper_api"}}, "CHATASSIST_ASR__VENDOR"),
        ({"asr": {"engine": "whisper_api", "model": "m"}}, "CHATASSIST_ASR__BASE_URL"),
        ({"asr": {"engine": "whisper_api", "base_url": "https://hidden.example.com"}}, "CHATASSIST_ASR__MODEL"),
        ({"asr": {"vendor": "hidden"}}, "CHATASSIST_ASR__ENGINE"),
        ({"asr": {"engine": "whisper_api", "vendor": "hidden words"}}, "asr.vendor"),
        ({"asr": {"engine": "whisper_local"}}, "CHATASSIST_ASR__MODEL"),
        ({"asr": {"api_key": "sk-hidden"}}, "CHATASSIST_ASR__ENGINE"),
        ({"asr": {"engine": "hidden"}}, "asr.engine"),
        ({"asr": {"deadline": 0}}, "asr.deadline"),
        ({"limits": {"audio_bytes": 0}}, "limits.audio_bytes"),
        ({"http": {"port": "hidden"}}, "http.port"),
        ({"http": {"trusted_proxies": "hidden"}}, "http.trusted_proxies"),
        ({"llm": {"deadline": "nan"}}, "llm.deadline"),
        ({"llm": {"vendor": "hidden words", "model": "m"}}, "llm.vendor"),
        ({"llm": {"vendor": "deepseek"}}, "CHATASSIST_LLM__MODEL"),
        ({"llm": {"base_url": "https://hidden.example.com/v1"}}, "CHATASSIST_LLM__MODEL"),
        ({"llm": {"overrides": "{}", "thinking": True}}, "CHATASSIST_LLM__MODEL"),
        ({"llm": {"vendors_file": "hidden.toml", "vendor": "scripted"}}, "CHATASSIST_LLM__VENDOR exclude each other"),
        ({"llm": {"vendors_file": "hidden.toml", "base_url": "http://hidden"}}, "CHATASSIST_LLM__BASE_URL exclude"),
        ({"llm": {"vendors_file": "hidden.toml", "api_key": "hidden"}}, "CHATASSIST_LLM__API_KEY exclude each other"),
        ({"llm": {"vendors_file": "hidden.toml", "model": "hidden"}}, "CHATASSIST_LLM__MODEL exclude each other"),
        ({"llm": {"vendors_file": "hidden.toml", "thinking": False}}, "CHATASSIST_LLM__THINKING exclude each other"),
        ({"llm": {"vendors_file": "hidden.toml", "overrides": "{}"}}, "CHATASSIST_LLM__OVERRIDES exclude each other"),
        ({"llm": {"overrides": "{hidden"}}, "must be a JSON object"),
        ({"llm": {"overrides": '["hidden"]'}}, "must be a JSON object"),
        ({"llm": {"overrides": "[]"}}, "must be a JSON object"),
        ({"llm": {"overrides": "null"}}, "must be a JSON object"),
        ({"llm": {"overrides": '{"api_key": "sk-hidden"}'}}, "`api_key` is no key that is known here: it is a setting"),
        ({"llm": {"overrides": '{"sk-hidden\\n": 1}'}}, "`…` is no key that is known here"),
        ({"llm": {"overrides": f'{{"sk-hidden{"x" * 40}": 1}}'}}, "`…` is no key that is known here"),
        ({"llm": {"overrides": '{"extra": {"stream": false}}'}}, "`extra` must not hold messages, model, stream"),
        ({"llm": {"overrides": '{"at_onze": 1, "extra": {"hidden": 1}}'}}, "`at_onze` is no key that is known"),
        ({"llm": {"overrides": '{"at_once": "hidden"}'}}, "`at_once` should be a valid integer"),
        (
            {"llm": {"overrides": '{"query": {"api-version": 20240101}}'}},
            "`query.api-version` should be a valid string",
        ),
        ({"llm": {"overrides": '{"auth": "hidden"}'}}, "`auth` should be 'bearer'"),
        ({"llm": {"overrides": '{"extra": {"hidden": NaN}}'}}, "`extra` must hold what JSON can hold"),
        ({"llm": {"thinking": "hidden"}}, "llm.thinking"),
        ({"llm": {"max_waiting": -1}}, "llm.max_waiting"),
        ({"limits": {"sends_per_minute": -1}}, "limits.sends_per_minute"),
        ({"env": "hidden"}, "env"),
        ({"redis": {"url": "http://hidden:6379"}}, "redis.url"),
        ({"redis": {"url": "redis://"}}, "redis.url"),
        ({"redis": {"url": "redis://:hidden@h:0/1"}}, "redis.url"),
        ({"redis": {"url": "redis://:hidden@h:99999/1"}}, "redis.url"),
        ({"redis": {"url": "redis://:hidden@h/name"}}, "redis.url"),
        ({"redis": {"url": "redis://:hidden@h/1?db=2"}}, "redis.url"),
        ({"redis": {"url": "redis://[::1/hidden"}}, "redis.url"),
        (production(wechat={"appid": " ", "secret": " "}), "wechat.appid"),
        (production(wechat={"appid": "wx1", "secret": "hidden key"}), "wechat.secret"),
        ({"llm": {"base_url": "http://a/v1", "model": "m", "api_key": "hidden密钥"}}, "llm.api_key"),
        ({"wechat": {"base_url": "http://a:999999"}}, "wechat.base_url"),
        ({"http": {"cors_origins": "hidden"}}, "http.cors_origins"),
    ],
)
def test_nonsense_stops_the_start(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**given)
    told = str(caught.value)
    assert named in told
    assert "hidden" not in told, "never the value"


def test_a_scripted_model_in_production_has_to_be_asked_for() -> None:
    assert Settings(**production(llm={"vendor": "scripted"})).llm.is_scripted


def test_a_vendor_can_be_switched_off_with_the_rest_left_as_it_is() -> None:
    given: dict[str, Any] = {"llm": {"vendor": "scripted", "api_key": "sk-hidden", "model": "m", "title_model": "t"}}
    assert Settings(**given).llm.is_scripted


def test_a_vendors_file_makes_a_vendor_of_its_own() -> None:
    given: dict[str, Any] = {"llm": {"vendors_file": "vendors.toml", "title_model": "t"}}
    assert not Settings(**given).llm.is_scripted
    assert not Settings(**production(**given)).llm.is_scripted


def test_overrides_come_as_json_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}LLM__VENDOR", "deepseek")
    monkeypatch.setenv(f"{PREFIX}LLM__MODEL", "m")
    monkeypatch.setenv(f"{PREFIX}LLM__OVERRIDES", '{"at_once": 20, "query": {"api-version": "1"}}')
    overrides = Settings().llm.overrides
    assert overrides is not None
    assert (overrides.at_once, overrides.query, overrides.auth) == (20, {"api-version": "1"}, None)
    monkeypatch.setenv(f"{PREFIX}LLM__OVERRIDES", "")
    assert Settings().llm.overrides is None, "empty is not set"


def test_an_engine_can_be_switched_off_with_the_rest_left_as_it_is() -> None:
    given: dict[str, Any] = {"asr": {"engine": "none", "api_key": "sk-hidden", "model": "m"}}
    assert Settings(**given).asr.engine == "none"


def test_a_vendor_that_hears_needs_only_its_name() -> None:
    given: dict[str, Any] = {"asr": {"engine": "whisper_api", "vendor": "siliconflow"}}
    assert Settings(**given).asr.vendor == "siliconflow"


def test_secrets_do_not_show() -> None:
    assert "sk-hidden" not in repr(Settings(**production()))
    assert "w-hidden" not in repr(Settings(**production(redis={"url": "rediss://me:w-hidden@h:6380/2"})))


def test_misspelt_variables_are_found(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHATASSIST_LLM__MODLE=x\n")
    environment = {"CHATASSIST_HTTP__PROT": "1", "CHATASSIST_HTTP__PORT": "1", "CHATASSIST_TEST_MYSQL_URL": "x"}
    assert unknown_variables(environment, tmp_path / ".env") == ["CHATASSIST_HTTP__PROT", "CHATASSIST_LLM__MODLE"]


def test_a_variable_that_a_vendors_file_names_is_not_misspelt(tmp_path: Path) -> None:
    file = tmp_path / "vendors.toml"
    file.write_text('[[vendor]]\nkind = "kimi"\napi_key_env = "CHATASSIST_KEY_OF_KIMI"\nmodels = [{ id = "m" }]\n')
    environment = {"CHATASSIST_KEY_OF_KIMI": "k", "CHATASSIST_KEY_OF_QWEN": "q"}
    for read, unknown in ((str(file), ["CHATASSIST_KEY_OF_QWEN"]), (None, sorted(environment))):
        assert unknown_variables(environment, tmp_path / ".env", keys=key_variables(read)) == unknown
    file.write_text("no TOML")
    assert key_variables(str(file)) == set()


def test_the_example_file_names_every_variable_and_no_other() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")
    named = {line.lstrip("# ").partition("=")[0] for line in example.splitlines() if PREFIX in line and "=" in line}
    assert named == set(variables())


def test_the_example_file_holds_no_value() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")
    assert all(not line.partition("=")[2] for line in example.splitlines() if PREFIX in line and "=" in line)
