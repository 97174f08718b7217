"""AI vendors as data: where they are, how they want to be spoken to, and what is odd about each.

To add one is to add a row; no code knows a vendor by its name. What a row does not say is as at OpenAI, and what costs
nothing is looked for everywhere: comments in a stream, inline `<think>`, errors within HTTP 200, a missing [DONE].

Two things need no field. Models that only stream (Qwen's with open weights): every call streams. And reasoning that a
vendor wants back: DeepSeek, Kimi and MiniMax do between the calls of a tool, none in plain chat, and we have no tools.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from urllib.parse import urlsplit

from chatassist.adapters.vendor import (
    Auth,
    SpeechRoute,
    Thinking,
    TranscriptionRoute,
    TranscriptionStyle,
    Vendor,
)
from chatassist.adapters.vendor_address import belongs
from chatassist.adapters.vendor_errors import Kind

_ENABLED = Thinking(on={"thinking": {"type": "enabled"}}, off={"thinking": {"type": "disabled"}})
_EFFORT = Thinking(on={"reasoning_effort": "medium"}, off={"reasoning_effort": "none"})
_ENABLE = Thinking(on={"enable_thinking": True}, off={"enable_thinking": False})
_BY_TEMPLATE = Thinking(
    on={"chat_template_kwargs": {"enable_thinking": True}}, off={"chat_template_kwargs": {"enable_thinking": False}}
)

_WESTERN = (
    Vendor(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        hosts=("api.openai.com",),
        limit_parameter="max_completion_tokens",  # its reasoning models refuse max_tokens
        thinking=_EFFORT,
        codes={"insufficient_quota": Kind.BILLING},  # Qwen means something else by it
        transcription=TranscriptionRoute(model="gpt-4o-mini-transcribe"),
        speech=SpeechRoute(model="gpt-4o-mini-tts", voice="alloy"),
        models=("gpt-5.5", "gpt-5.4-mini", "gpt-4.1-mini", "gpt-4o-mini"),
    ),
    Vendor(
        name="azure",
        title="Azure OpenAI",
        base_url=None,
        hosts=("openai.azure.com",),
        paths=("/openai/v1", "/openai/deployments/"),
        auth=Auth.API_KEY,
        query={"api-version": "2024-10-21"},
        query_in="/openai/deployments/",  # its newer addresses refuse it
        limit_parameter="max_completion_tokens",
        thinking=_EFFORT,
        transcription=TranscriptionRoute(model=""),
        note="The model is the name of your deployment. The address is https://RESOURCE.openai.azure.com/openai/v1, or"
        " .../openai/deployments/DEPLOYMENT.",
    ),
    Vendor(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        hosts=("openrouter.ai",),
        thinking=Thinking(
            on={"reasoning": {"enabled": True}},
            off={"reasoning": {"enabled": False}},
            fields=("reasoning", "reasoning_details", "reasoning_content"),
        ),
        moderation_in=("reasons", "flagged_input"),  # its 403 is a spent or limited key as well
        models=("openai/gpt-5.4-mini", "deepseek/deepseek-v4-flash"),
        note="Models have their vendor's name before them.",
    ),
    Vendor(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        hosts=("api.groq.com",),
        usage_in=("x_groq",),
        thinking=Thinking(off={"reasoning_effort": "none"}, fields=("reasoning", "reasoning_content")),
        transcription=TranscriptionRoute(model="whisper-large-v3-turbo"),
        speech=SpeechRoute(model="canopylabs/orpheus-v1-english", voice="troy", format="wav"),
        models=("llama-3.3-70b-versatile", "openai/gpt-oss-120b"),
    ),
)

_CHINESE = (
    Vendor(
        name="deepseek",
        title="DeepSeek",
        base_url="https://api.deepseek.com",
        hosts=("api.deepseek.com",),
        thinking=_ENABLED,
        models=("deepseek-v4-flash", "deepseek-v4-pro"),
    ),
    Vendor(
        name="qwen",
        title="Alibaba Bailian (Qwen, DashScope)",
        base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
        hosts=(
            *("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
            "maas.aliyuncs.com",
        ),
        thinking=_ENABLE,
        codes={
            "insufficient_quota": Kind.RATE,  # tokens a minute; an unpaid account is Arrearage
            "allocationquota.freetieronly": Kind.BILLING,
        },
        # 10 MB of base64, so 230 s of what we send
        transcription=TranscriptionRoute(model="qwen3-asr-flash", style=TranscriptionStyle.CHAT, max_seconds=180),
        models=("qwen3.5-plus", "qwen3.5-flash", "qwen-plus", "qwen-flash"),
        note="A key belongs to one region: elsewhere it is refused as if it were wrong.",
    ),
    Vendor(
        name="zhipu",
        title="Zhipu GLM",
        base_url="https://open.bigmodel.cn/api/paas/v4",
        hosts=("open.bigmodel.cn", "api.z.ai"),
        min_temperature=0.01,  # older models take neither 0 nor 1
        max_temperature=0.99,
        thinking=_ENABLED,
        codes={
            **dict.fromkeys(("1000", "1001", "1002", "1003", "1004", "1112", "1121"), Kind.AUTH),
            "1113": Kind.BILLING,
            **dict.fromkeys(("1210", "1212", "1213", "1214", "1215"), Kind.PARAMETER),
            "1211": Kind.CONFIGURATION,
            "1261": Kind.TOO_LONG,
            "1301": Kind.UNSAFE_INPUT,
            **dict.fromkeys(("1302", "1303", "1304", "1305", "1308", "1310", "1313"), Kind.RATE),
            "1312": Kind.OVERLOAD,
        },
        transcription=TranscriptionRoute(model="glm-asr-2512", hints=False, max_seconds=30),
        speech=SpeechRoute(model="glm-tts", voice="tongtong", format="wav", max_chars=1024),
        models=("glm-4.7", "glm-4.5-air", "glm-4-flash"),
    ),
    Vendor(
        name="kimi",
        title="Moonshot Kimi",
        base_url="https://api.moonshot.cn/v1",
        hosts=("api.moonshot.cn", "api.moonshot.ai"),
        max_temperature=1.0,
        usage_in=("choices",),
        thinking=_ENABLED,
        models=("kimi-k2.6", "kimi-k2.5", "moonshot-v1-auto"),
        note="Keys of api.moonshot.cn and .ai are not interchangeable. Newer models take no temperature but 1.",
    ),
    Vendor(
        name="doubao",
        title="ByteDance Ark (Doubao)",
        base_url="https://ark.cn-beijing.volces.com/api/v3",
        hosts=("volces.com",),
        thinking=_ENABLED,
        codes={"modelnotopen": Kind.CONFIGURATION, "quotaexceeded": Kind.RATE},
        models=("doubao-seed-1-8-251228", "doubao-seed-1-6-251015"),
        note="Each model has to be activated in the console first; an endpoint's id (ep-...) will do as a model.",
    ),
    Vendor(
        name="hunyuan",
        title="Tencent Hunyuan",
        base_url="https://api.hunyuan.cloud.tencent.com/v1",
        hosts=("api.hunyuan.cloud.tencent.com",),
        at_once=5,  # of all sub-accounts together
        models=("hunyuan-turbos-latest", "hunyuan-lite"),
        note="All sub-accounts together may make 5 calls at a time.",
    ),
    Vendor(
        name="qianfan",
        title="Baidu Qianfan",
        base_url="https://qianfan.baidubce.com/v2",
        hosts=("qianfan.baidubce.com",),
        codes={"invalid_model": Kind.CONFIGURATION},  # with 401 too, where the key has no right to it
        flags={"flag": (3, 4)},  # must not show, withdraw; 0 to 2 may be shown
        models=("ernie-4.5-turbo-128k", "ernie-x1-turbo-32k"),
        note="The key begins with bce-v3/ALTAK-.",
    ),
    Vendor(
        name="siliconflow",
        title="SiliconFlow",
        base_url="https://api.siliconflow.cn/v1",
        hosts=("api.siliconflow.cn", "api.siliconflow.com"),
        thinking=_ENABLE,
        codes={"20012": Kind.CONFIGURATION},  # there is no such model
        transcription=TranscriptionRoute(model="FunAudioLLM/SenseVoiceSmall", hints=False),
        speech=SpeechRoute(model="FunAudioLLM/CosyVoice2-0.5B", voice="FunAudioLLM/CosyVoice2-0.5B:alex"),
        models=("deepseek-ai/DeepSeek-V3.2", "Qwen/Qwen3-32B"),
        note="Models have their maker's name before them; those that begin with Pro/ are paid for.",
    ),
    Vendor(
        name="minimax",
        title="MiniMax",
        base_url="https://api.minimaxi.com/v1",
        hosts=("api.minimaxi.com", "api.minimax.io", "api.minimax.chat"),
        min_temperature=0.01,
        max_temperature=1.0,
        thinking=Thinking(fields=("reasoning_details", "reasoning_content")),
        extra={"reasoning_split": True},  # apart from the text; inline otherwise
        codes={
            **dict.fromkeys(("1004", "2049"), Kind.AUTH),
            "1008": Kind.BILLING,
            "1026": Kind.UNSAFE_INPUT,
            "1027": Kind.UNSAFE_OUTPUT,
            # 1039 is called "token limit", but to be tried later: it is that of a minute.
            **dict.fromkeys(("1002", "1039", "1041", "2045", "2056"), Kind.RATE),
            **dict.fromkeys(("1042", "2013"), Kind.PARAMETER),
            **dict.fromkeys(("1000", "1001", "1024", "1033"), Kind.FAULT),
        },
        errors_in=("base_resp",),
        flags={"input_sensitive": (True,), "output_sensitive": (True,)},
        models=("MiniMax-M2.7", "MiniMax-M2.5"),
    ),
)

_LOCAL = (
    Vendor(
        name="ollama",
        title="Ollama",
        base_url="http://127.0.0.1:11434/v1",
        auth=Auth.NONE,
        thinking=Thinking(
            on={"reasoning_effort": "medium"},
            off={"reasoning_effort": "none"},
            fields=("reasoning", "reasoning_content"),
        ),
        note="Models are those you pulled. Its default context is small, and it drops what is too old without a word.",
    ),
    Vendor(
        name="vllm",
        title="vLLM",
        base_url="http://127.0.0.1:8000/v1",
        auth=Auth.NONE,
        thinking=_BY_TEMPLATE,
        transcription=TranscriptionRoute(model=""),
        note="Keep it off public networks: its key guards only a part of its paths. It likes this service's own port.",
    ),
    Vendor(name="lmstudio", title="LM Studio", base_url="http://127.0.0.1:1234/v1", auth=Auth.NONE),
    Vendor(
        name="localai",
        title="LocalAI",
        base_url="http://127.0.0.1:8080/v1",
        auth=Auth.NONE,
        transcription=TranscriptionRoute(model="whisper-1"),
    ),
)

_ROWS = (*_WESTERN, *_CHINESE, *_LOCAL)


def _agreed(rows: Sequence[Vendor]) -> Mapping[str, Kind]:
    """Return the codes that mean one thing wherever they are used."""
    meanings: dict[str, set[Kind]] = {}
    for code, kind in chain.from_iterable(row.codes.items() for row in rows):
        meanings.setdefault(code, set()).add(kind)
    return {code: kinds.pop() for code, kinds in meanings.items() if len(kinds) == 1}


OPENAI_COMPATIBLE = Vendor(
    name="openai_compatible",
    title="Any other server or gateway",
    base_url=None,
    auth=Auth.NONE,
    usage_in=("choices", "x_groq"),
    thinking=Thinking(fields=("reasoning_content", "reasoning", "reasoning_details")),
    codes=_agreed(_ROWS),  # a gateway such as one-api passes any vendor's on
    errors_in=tuple(chain.from_iterable(row.errors_in for row in _ROWS)),
    moderation_in=tuple(chain.from_iterable(row.moderation_in for row in _ROWS)),
    flags={name: values for row in _ROWS for name, values in row.flags.items()},
    transcription=TranscriptionRoute(model=""),
    speech=SpeechRoute(model="", voice=""),
    note="A key is shown where one is set.",
)

CATALOGUE: Mapping[str, Vendor] = MappingProxyType({row.name: row for row in (*_ROWS, OPENAI_COMPATIBLE)})
"""All kinds of vendors by name."""


def kind_of(base_url: str) -> Vendor:
    """Return the vendor that an address belongs to, by its host; the general one if nobody knows it, or it is none."""
    try:
        host = urlsplit(base_url.strip() if "://" in base_url else f"//{base_url.strip()}").hostname or ""
    except ValueError:  # a port or an IPv6 address that is none
        host = ""
    return next((row for row in _ROWS if belongs(row, host)), OPENAI_COMPATIBLE)
