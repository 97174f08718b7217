"""Addresses as operators write them: repaired where it is plain what is meant, refused otherwise."""

import pytest

from chatassist.adapters.catalogue import CATALOGUE, kind_of
from chatassist.adapters.vendor_address import repaired

SECRET = "sk-very-secret"
PASTED = (
    "chat/completions",
    "completions",
    "responses",
    "models",
    "embeddings",
    "audio/transcriptions",
    "audio/speech",
)

REPAIRED = {
    # what was given: what is meant
    "https://api.openai.com/v1": "https://api.openai.com/v1",
    " https://api.openai.com/v1/ \n": "https://api.openai.com/v1",
    "https://api.openai.com/v1//": "https://api.openai.com/v1",
    "https://api.openai.com/v1/v1": "https://api.openai.com/v1",
    "https://api.openai.com": "https://api.openai.com/v1",
    "http://api.openai.com/v1": "https://api.openai.com/v1",
    "http://api.openai.com:80/v1": "https://api.openai.com/v1",
    "HTTPS://API.OPENAI.COM/v1": "https://API.OPENAI.COM/v1",
    "api.openai.com/v1": "https://api.openai.com/v1",
    "api.deepseek.com": "https://api.deepseek.com",
    "https://api.deepseek.com/v1": "https://api.deepseek.com/v1",
    "https://api.deepseek.com/v1/v1/chat/completions": "https://api.deepseek.com/v1",
    "https://openrouter.ai": "https://openrouter.ai/api/v1",
    "https://openrouter.ai/v1": "https://openrouter.ai/api/v1",
    "https://api.groq.com/openai/v1/v1/": "https://api.groq.com/openai/v1",
    "https://open.bigmodel.cn/api/paas/v4/v1": "https://open.bigmodel.cn/api/paas/v4",
    "https://open.bigmodel.cn/api/coding/paas/v4": "https://open.bigmodel.cn/api/coding/paas/v4",
    "https://api.z.ai": "https://api.z.ai/api/paas/v4",
    "https://dashscope-intl.aliyuncs.com": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    "https://w.cn-beijing.maas.aliyuncs.com/": "https://w.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
    "https://ark.cn-beijing.volces.com/api/v3/v3": "https://ark.cn-beijing.volces.com/api/v3",
    "https://x.openai.azure.com/openai/v1/": "https://x.openai.azure.com/openai/v1",
    "https://x.openai.azure.com/openai/deployments/d": "https://x.openai.azure.com/openai/deployments/d",
    "https://x.openai.azure.com/openai/deployments/d/chat/completions": "https://x.openai.azure.com/openai/deployments/d",
    # nobody's, as far as we know
    "http://localhost:8000": "http://localhost:8000",
    "http://localhost:8000/v1/v1/": "http://localhost:8000/v1",
    "http://localhost:8000/v1/v1beta": "http://localhost:8000/v1/v1beta",
    "http://[::1]:8000/v1": "http://[::1]:8000/v1",
    "https://gateway.example.com/openai/v1": "https://gateway.example.com/openai/v1",
    "https://api.openai.com.example.com": "https://api.openai.com.example.com",
    "https://notapi.openai.example/v1": "https://notapi.openai.example/v1",
}


@pytest.mark.parametrize(("given", "meant"), REPAIRED.items(), ids=repr)
def test_an_address_becomes_what_is_meant_and_then_stays(given: str, meant: str) -> None:
    assert repaired(kind_of(given), given) == meant
    assert repaired(kind_of(meant), meant) == meant


@pytest.mark.parametrize("path", PASTED)
@pytest.mark.parametrize("base_url", ["https://api.openai.com/v1", "http://localhost:8000/v1", "https://example.com/a"])
def test_a_path_that_was_pasted_along_is_taken_off(base_url: str, path: str) -> None:
    assert repaired(kind_of(base_url), f"{base_url}/{path}/") == base_url


@pytest.mark.parametrize("kind", ["ollama", "vllm", "lmstudio", "localai"])
def test_a_server_of_ones_own_has_the_usual_path_unless_another_is_given(kind: str) -> None:
    assert repaired(CATALOGUE[kind], "http://gpu:9000") == "http://gpu:9000/v1"
    assert repaired(CATALOGUE[kind], "http://gpu:9000/other") == "http://gpu:9000/other"


def test_a_vendor_behind_a_gateway_keeps_the_gateways_address() -> None:
    assert repaired(CATALOGUE["qwen"], "http://gateway.internal/v1") == "http://gateway.internal/v1"
    assert repaired(CATALOGUE["openai"], "http://gateway.internal") == "http://gateway.internal"


REFUSED = {
    "": "is none such as",
    "nonsense": "is none such as",
    "localhost:8000/v1": "is none such as",
    f"ftp://example.com/{SECRET}": "is none such as",
    f"https:///{SECRET}": "is none such as",
    f"https://example.com:x/{SECRET}": "is none such as",
    f"https://example.com:0/{SECRET}": "is none such as",
    f"https://[::1/{SECRET}": "is none such as",
    f"https://example.com/{SECRET} /v1": "is none such as",
    f"https://example.com/v1\r\nX: {SECRET}": "is none such as",
    f"https://{SECRET}@api.openai.com/v1": "has an account in it",
    f"https://user:{SECRET}@example.com/v1": "has an account in it",
    f"https://example.com/v1?key={SECRET}": "has a query",
    f"https://example.com/v1#{SECRET}": "fragment",
    "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21": "has a query",
    "https://x.openai.azure.com": "needs its path",
    f"https://x.openai.azure.com/{SECRET}": "needs its path",
}


@pytest.mark.parametrize(("given", "why"), REFUSED.items(), ids=repr)
def test_what_cannot_be_repaired_is_refused_in_a_sentence_without_it(given: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        repaired(kind_of(given), given)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_row_has_an_address_that_is_whole_or_none() -> None:
    for vendor in CATALOGUE.values():
        if vendor.base_url is not None:
            assert repaired(vendor, vendor.base_url) == vendor.base_url
