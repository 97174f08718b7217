"""The rows of the catalogue: that they are whole, and do not contradict one another."""

import pytest

from chatassist.adapters.catalogue import CATALOGUE, OPENAI_COMPATIBLE, kind_of
from chatassist.adapters.vendor import Access, Auth, Vendor
from chatassist.adapters.vendor_errors import Kind

ROWS = [pytest.param(vendor, id=name) for name, vendor in CATALOGUE.items()]
LOCAL = {"ollama", "vllm", "lmstudio", "localai"}


def test_every_vendor_of_the_issue_is_there() -> None:
    assert set(CATALOGUE) == {
        *("openai", "azure", "deepseek", "qwen", "zhipu", "kimi", "doubao", "hunyuan", "qianfan", "siliconflow"),
        *("minimax", "openrouter", "groq", *LOCAL, "openai_compatible"),
    }
    assert all(vendor.name == name for name, vendor in CATALOGUE.items())


@pytest.mark.parametrize("vendor", ROWS)
def test_a_row_is_in_order(vendor: Vendor) -> None:
    assert vendor.title
    assert vendor.base_url or vendor.note, "who has no address is told what it looks like"
    assert all(code == code.lower() for code in vendor.codes)
    assert 0 <= vendor.min_temperature < vendor.max_temperature <= 2
    assert vendor.thinking.fields
    if vendor.transcription:
        assert vendor.transcription.max_seconds is None or vendor.transcription.max_seconds >= 30
    assert (vendor.name in LOCAL) == bool((vendor.base_url or "").startswith("http://"))
    assert (vendor.auth is Auth.NONE) == (vendor.name in LOCAL or vendor is OPENAI_COMPATIBLE)


def test_no_host_belongs_to_two() -> None:
    hosts = [host for vendor in CATALOGUE.values() for host in vendor.hosts]
    assert len(hosts) == len(set(hosts))
    for vendor in CATALOGUE.values():
        assert [kind_of(f"https://{host}/v1").name for host in vendor.hosts] == [vendor.name] * len(vendor.hosts)


@pytest.mark.parametrize(
    "address", ["", "nonsense", "http://[", "http://x:y", "http://127.0.0.1:11434/v1", "https://e.g"]
)
def test_whose_host_nobody_knows_is_any_server(address: str) -> None:
    assert kind_of(address) is OPENAI_COMPATIBLE


def test_what_codes_of_two_vendors_agree_on_holds_for_gateways_and_nothing_else() -> None:
    codes = OPENAI_COMPATIBLE.codes
    assert (codes["1113"], codes["1027"]) == (Kind.BILLING, Kind.UNSAFE_OUTPUT)
    assert not {"1000", "1002", "insufficient_quota"} & set(codes)
    for vendor in CATALOGUE.values():
        assert all(codes.get(code, kind) is kind for code, kind in vendor.codes.items())


@pytest.mark.parametrize(
    ("path", "version"), [("/openai/deployments/d", {"api-version": "2024-10-21"}), ("/openai/v1", {})]
)
def test_azure_wants_its_version_at_one_of_its_two_kinds_of_addresses(path: str, version: dict[str, str]) -> None:
    assert Access(vendor=CATALOGUE["azure"], base_url=f"https://x.openai.azure.com{path}").query == version


def test_a_key_is_in_no_representation() -> None:
    assert "sk-secret" not in repr(Access(vendor=OPENAI_COMPATIBLE, base_url="http://x/v1", api_key="sk-secret"))
