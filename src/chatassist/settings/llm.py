"""What an operator can set about AI vendors. Which ones there are is not known here: the catalogue is the adapters'."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from chatassist.settings.kinds import Count, HeaderSecret, ModelName, Seconds, Section, Word
from chatassist.settings.vendors import Overrides, read_overrides

SCRIPTED = "scripted"
OPENAI_COMPATIBLE = "openai_compatible"
_OF_ONE_VENDOR = ("vendor", "base_url", "api_key", "model", "overrides", "thinking")


class LlmSettings(Section):
    """The AI vendor, or several."""

    vendor: Word | None = Field(
        default=None, description="a name that `chatassist vendors` lists, or scripted, as when nothing is given"
    )
    base_url: str | None = Field(default=None, description="its address, where it is another than the vendor's")
    api_key: HeaderSecret | None = Field(default=None, description="the vendor's key; servers of your own need none")
    model: ModelName | None = Field(default=None, description="the model's name at the vendor")
    title_model: ModelName | None = Field(
        default=None, description="its model to name sessions; else their first words do"
    )
    vendors_file: str | None = Field(
        default=None, description="TOML with several vendors instead of the above: see docs/vendors.md"
    )
    overrides: Annotated[Overrides | None, NoDecode, BeforeValidator(read_overrides)] = Field(
        default=None, description="what is otherwise than the catalogue says of the vendor: see docs/vendors.md"
    )
    thinking: bool | None = Field(default=None, description="whether the model thinks first; by default its own way")
    idle_timeout: Seconds = Field(default=30, description="seconds without a byte")
    deadline: Seconds = Field(default=120, description="seconds a reply may take")
    system_prompt: str = Field(default="", description="said to the model before every conversation")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="how freely it speaks; the vendor's own by default"
    )
    context_tokens: Count = Field(default=6000, description="tokens of history; system prompt and question stay whole")
    max_output_tokens: int | None = Field(default=2000, ge=1, description="tokens a reply may have, thinking included")
    max_connections: int = Field(
        default=10_000, ge=1, le=100_000, description="replies that a vendor may make at a time; two open files each"
    )
    max_calls: int = Field(
        default=3, ge=1, le=3, description="calls of vendors that a reply may cost: 1 asks the first alone, and once"
    )
    max_waiting: Count = Field(default=1000, description="replies that may wait for a vendor; more are refused at once")

    @property
    def is_scripted(self) -> bool:
        """Whether no vendor is asked: none is configured, or none is wanted."""
        return self.vendor == SCRIPTED or not (self.title_model or self.vendors_file or self._of_one_vendor)

    @property
    def _of_one_vendor(self) -> Sequence[str]:
        """What is set that a file would say."""
        return [name for name in _OF_ONE_VENDOR if getattr(self, name) not in (None, "")]

    def rules(self, *, is_production: bool) -> Iterator[tuple[bool, str]]:
        """Yield what must not be, each with its sentence."""
        alone = self._of_one_vendor
        yield (
            self.vendors_file is not None and bool(alone),
            f"CHATASSIST_LLM__VENDORS_FILE and CHATASSIST_LLM__{(alone or [''])[0].upper()} exclude each other:"
            " unset one.",
        )
        yield (
            not (self.is_scripted or self.vendors_file) and not (self.model and (self.vendor or self.base_url)),
            "CHATASSIST_LLM__MODEL is needed for an AI vendor, and CHATASSIST_LLM__VENDOR or CHATASSIST_LLM__BASE_URL.",
        )
        yield (
            is_production and self.is_scripted and self.vendor is None,
            "No AI vendor is set: give CHATASSIST_LLM__VENDOR, CHATASSIST_LLM__API_KEY and CHATASSIST_LLM__MODEL,"
            " or CHATASSIST_LLM__VENDORS_FILE, or CHATASSIST_LLM__VENDOR=scripted.",
        )
