"""The vendors file as an operator writes it: what is wrong is told in one sentence, by row and key, never by value."""

from pathlib import Path

import pytest

from chatassist.settings.vendors import looked_up, read_vendors_file

TWO = """
[[vendor]]
kind = "deepseek"
api_key_env = "DEEPSEEK_API_KEY"
models = [{ id = "deepseek-v4-flash", name = "快速" }, { id = "deepseek-v4-pro", public = false }]

[[vendor]]
name = "spare"
kind = "qwen"
base_url = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
api_key_env = "QWEN_API_KEY"
thinking = false
max_temperature = 1
at_once = 20
query = { a = "b" }
extra = { top_k = 5, nested = { deep = [1, true, "x"] } }
codes = { "1234" = "billing" }
transcription = { model = "qwen3-asr-flash", style = "chat" }
models = [{ id = "fast", upstream = "qwen-flash" }, { id = "deepseek-v4-flash", upstream = "ds", default = true }]
"""
KINDS = ("deepseek", "qwen")
ROW = '[[vendor]]\nkind = "deepseek"\nmodels = [{ id = "m" }]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vendors.toml"


def test_rows_come_in_their_order_with_all_they_say(file: Path) -> None:
    file.write_text(TWO, encoding="utf-8")
    first, second = read_vendors_file(str(file))
    assert (first.called, first.kind, first.thinking, first.base_url) == ("deepseek", "deepseek", None, None)
    assert [(model.id, model.name, model.public) for model in first.models] == [
        ("deepseek-v4-flash", "快速", True),
        ("deepseek-v4-pro", None, False),
    ]
    assert (second.called, second.kind, second.thinking, second.at_once) == ("spare", "qwen", False, 20)
    assert second.max_temperature == 1
    assert second.extra == {"top_k": 5, "nested": {"deep": [1, True, "x"]}}
    assert second.transcription is not None
    assert (second.transcription.style, second.transcription.hints) == ("chat", None)
    assert [(model.id, model.upstream, model.default) for model in second.models] == [
        ("fast", "qwen-flash", False),
        ("deepseek-v4-flash", "ds", True),
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_it(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode())
    assert [row.called for row in read_vendors_file(str(file))] == ["deepseek"]


def test_a_models_name_may_have_128_characters_of_any_script(file: Path) -> None:
    file.write_text(ROW.replace('"m"', f'"{"模" * 128}"'), encoding="utf-8")
    assert read_vendors_file(str(file))[0].models[0].id == "模" * 128


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "it holds no [[vendor]] row"),
        ("# hidden\n", "it holds no [[vendor]] row"),
        ("vendor = []", "it holds no [[vendor]] row"),
        ('vendor = "hidden"', "it holds no [[vendor]] row"),
        ("[vendor]\nhidden = 1", "it holds no [[vendor]] row"),
        ("vendor = [1]", "vendor 1: should be a table of keys and values"),
        ("[[vendor]]\nkind = hidden", "it is no TOML, at line 2, column 8"),
        ('[[vendor]]\nkind = "hidden', "it is no TOML"),
        (f"{ROW}[[vendors]]\n", "`vendors` is no key that is known here"),
        ("[[vendor]]\n", "vendor 1: `kind` is missing"),
        ("[[vendor]]\nkind = 7\n", "vendor 1: `kind` should be a valid string"),
        ('[[vendor]]\nkind = "hidden word"\n', "vendor 1: `kind` must be a word"),
        ('[[vendor]]\nkind = "sk-hidden"\n', "vendor 1: `models` is missing"),
        ('[[vendor]]\nkind = "deepseek"\n', "vendor 1 (deepseek): `models` is missing"),
        ('[[vendor]]\nkind = "deepseek"\nmodels = []\n', "vendor 1 (deepseek): `models` must not be empty"),
        (f'{ROW}api_key = "sk-hidden"\n', "`api_key` is no key that is known here: api_key_env names the variable"),
        (
            f'{ROW}name = "good"\napi_key_env = "sk-hidden"\n',
            "vendor 1 (good): `api_key_env` must be the name of a var",
        ),
        (f"{ROW}api_key_env = 5\n", "`api_key_env` should be a valid string"),
        (f'{ROW}colour = "hidden"\n', "vendor 1 (deepseek): `colour` is no key that is known here"),
        (f'{ROW}"sk-hidden\\nmore" = 1\n', "vendor 1 (deepseek): `…` is no key that is known here"),
        (f'{ROW}"sk-hidden\\u202e" = 1\n', "vendor 1 (deepseek): `…` is no key that is known here"),
        (f"{ROW}sk-hidden-{'x' * 40} = 1\n", "vendor 1 (deepseek): `…` is no key that is known here"),
        (f'{ROW}name = "hidden name"\n', "vendor 1: `name` must be 1 to 40 letters"),
        (f'{ROW}base_url = ""\n', "`base_url` should have at least 1 character"),
        (f'{ROW}thinking = "yes"\n', "`thinking` should be a valid boolean"),
        (f"{ROW}at_once = 1.5\n", "`at_once` should be a valid integer"),
        (f"{ROW}at_once = -1\n", "`at_once` should be greater than or equal to 0"),
        (f'{ROW}usage_in = "hidden"\n', "`usage_in` should be a list"),
        (f'{ROW}auth = "hidden"\n', "`auth` should be 'bearer', 'api_key' or 'none'"),
        (f'{ROW}limit_parameter = "hid den"\n', "`limit_parameter` must be the name of a parameter"),
        (f"{ROW}extra = {{ since = 1979-05-27 }}\n", "`extra` must hold what JSON can hold"),
        (f'{ROW}extra = {{ model = "hidden" }}\n', "`extra` must not hold messages, model, stream"),
        (f"{ROW}extra = {{ messages = [] }}\n", "`extra` must not hold messages, model, stream"),
        (f"{ROW}thinking_off = {{ stream = false }}\n", "`thinking_off` must not hold messages, model, stream"),
        (f"{ROW}thinking_on = {{ a = [nan] }}\n", "`thinking_on` must hold what JSON can hold"),
        (f'{ROW}speech = {{ voice = "hidden", pitch = 1 }}\n', "`speech.pitch` is no key that is known here"),
        (f"{ROW}{ROW}", "vendor 2 (deepseek): an earlier row has this name too"),
        (f'{ROW}name = "a"\n{ROW}{ROW}name = "a"\n', "vendor 3 (a): an earlier row has this name too"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(file: Path, written: str, told: str) -> None:
    file.write_text(written)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is what is looked at
        read_vendors_file(str(file), KINDS)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value), "never the value"


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ('["hidden"]', "`models.1` should be a table"),
        ('[{ name = "hidden" }]', "`models.1.id` is missing"),
        ('[{ id = "m" }, { id = "a hidden one" }]', "`models.2.id` must be 1 to 128 characters that can be seen"),
        (f'[{{ id = "{"m" * 129}" }}]', "`models.1.id` must be 1 to 128 characters that can be seen, without blanks"),
        ('[{ id = "hidden\\u0007" }]', "`models.1.id` must be 1 to 128 characters that can be seen"),
        ('[{ id = "hidden\\u200b" }]', "`models.1.id` must be 1 to 128 characters that can be seen"),
        ('[{ id = "m", upstream = "hidden\\u007f" }]', "`models.1.upstream` must be 1 to 128 characters that can be"),
        ('[{ id = "m", "sk-hidden\\u0000" = "hidden" }]', "`models.1.…` is no key that is known here"),
        ('[{ id = "m", name = "" }]', "`models.1.name` must be 1 to 60 characters"),
        ('[{ id = "m", public = 1 }]', "`models.1.public` should be a valid boolean"),
        ('[{ id = "m", note = "hidden" }]', "`models.1.note` is no key that is known here"),
        ('[{ id = "m" }, { id = "m", upstream = "hidden" }]', "models hold the same id twice"),
        ('[{ id = "m", default = true }, { id = "n", default = true }]', "models hold more than one default"),
    ],
)
def test_what_is_wrong_with_a_model_is_told_too(file: Path, models: str, told: str) -> None:
    file.write_text(f'[[vendor]]\nkind = "deepseek"\nmodels = {models}\n')
    with pytest.raises(ValueError, match=r"^vendor 1 \(deepseek\): ") as caught:
        read_vendors_file(str(file), KINDS)
    assert told in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path, file: Path) -> None:
    for path, told in ((file, "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError, match=f"^it cannot be read: {told}"):
            read_vendors_file(str(path))
    with pytest.raises(ValueError, match=r"^it cannot be read$"):
        read_vendors_file("~nobody-is-called-so/vendors.toml")
    file.write_bytes(b"# \xff")
    with pytest.raises(ValueError, match=r"^it is not UTF-8$"):
        read_vendors_file(str(file))
    file.write_text(f"a = {'[' * 5000}")
    with pytest.raises(ValueError, match=r"^it (cannot be read|is no TOML)"):
        read_vendors_file(str(file))


def test_a_key_is_looked_up_where_settings_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the environment first, then in `.env`, which is never exported; what is empty counts as not set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("A_VENDORS_KEY", raising=False)
    assert looked_up("A_VENDORS_KEY") == ""
    (tmp_path / ".env").write_text("A_VENDORS_KEY=from-the-file\n")
    assert looked_up("A_VENDORS_KEY") == "from-the-file"
    monkeypatch.setenv("A_VENDORS_KEY", "")
    assert looked_up("A_VENDORS_KEY") == "from-the-file"
    monkeypatch.setenv("A_VENDORS_KEY", "from-the-environment")
    assert looked_up("A_VENDORS_KEY") == "from-the-environment"
