"""Which secrets may sign tokens, and how a developer's machine gets one."""

import secrets
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from chatassist.adapters.identity.token_secret import check_secret, load_or_create_secret


@pytest.mark.parametrize(
    "weak",
    [
        "",
        "Zr2Lk5Xv1",
        "kX3hC7rJwZ1mB8sLfEaNgUo2iR6xKt4",  # 31 bytes
        "x" * 64,
        "ab" * 32,
        "correct horse " * 4,
        "kX3hC7rJwZ1mB8sLf" * 2 + "kX3",
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "abcabdabeabfabcabdabeabfabcabdfa",
        "changeme-changeme-changeme-12345",
        "this-is-my-very-Secret-key-1234567890",
        "MY_PASSWORD_IS_LONG_ENOUGH_I_HOPE",
        "your-256-bit-key-goes-here-thanks!",
        "chatassist-production-2026-key-one",
        "example-Zr2Lk5Xv1Nc7Mb4Jh9Gf3Ds6Ap0",
        "Zr2Lk5Xv1Nc7Mb4Jh9Gf3Ds6Ap0OtIuYtReEwQ\n",
        "Zr2Lk5Xv1Nc7Mb4Jh9Gf3Ds6Ap0OtIuYtReEwQ\udcff",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKX3hC7rJwZ1mB8sLfEaNgUo",
        "-----BEGIN PUBLIC KEY-----MIIBIjANBgkqhkiG9w0BAQEF",
    ],
)
def test_a_weak_secret_is_refused_without_being_shown(weak: str) -> None:
    with pytest.raises(ValueError, match=r"^the token secret ") as caught:
        check_secret(weak)

    assert not weak or weak not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("make", [secrets.token_urlsafe, secrets.token_hex], ids=["urlsafe", "hex"])
@pytest.mark.parametrize("size", [32, 48])
def test_a_random_secret_is_accepted(make: Callable[[int], str], size: int) -> None:
    for _ in range(50):
        check_secret(make(size))


@pytest.mark.parametrize("strong", ["密钥八个字符长度足够了吧", "J#9 vT!q0 zR^k3 Lp&8 mX*w1 Bd%6 Yh"])
def test_bytes_count_and_any_printable_character_will_do(strong: str) -> None:
    check_secret(strong)


def test_a_secret_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "token.secret"

    made = load_or_create_secret(path)

    check_secret(made)
    assert load_or_create_secret(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "token.secret"
    start = Barrier(8)

    def load(_: int) -> str:
        start.wait(5)
        return load_or_create_secret(path)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(8)))) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_who_comes_second_takes_the_first_ones_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process makes its file after ours has looked and before ours is in place."""
    path = tmp_path / "token.secret"
    theirs = secrets.token_urlsafe(48)

    def interrupted(size: int) -> str:
        path.write_text(theirs)
        return "mine" * 16

    monkeypatch.setattr("chatassist.adapters.identity.token_secret.secrets.token_urlsafe", interrupted)

    assert load_or_create_secret(path) == theirs


@pytest.mark.parametrize("content", ["", "\n", "changeme"])
def test_a_file_with_an_unfit_secret_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token.secret"
    path.write_text(content)

    with pytest.raises(ValueError, match="the token secret"):
        load_or_create_secret(path)

    assert path.read_text() == content
