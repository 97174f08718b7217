"""The transport to AI vendors while it connects: which address it takes, and whom it believes over TLS."""

import asyncio
import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatassist.adapters import dialling
from chatassist.adapters.dialling import Address
from chatassist.adapters.httptools_transport import HttptoolsTransport
from tests.fixtures.peer import CHUNKED, OK, Line, Peer, answers, calling, on_both_loops, says_nothing

LOCALHOST = ipaddress.ip_address("127.0.0.1")


class Certificate:
    """A self-signed certificate for 127.0.0.1, and the server's side of TLS with it."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOCALHOST)]), critical=False)
        made = builder.sign(key, hashes.SHA256())
        self.path = folder / "cert.pem"
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_path = folder / "key.pem"
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.path, key_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


def open_client(*, trusting: Path | None = None, connect: float = 5.0) -> httpx2.AsyncClient:
    transport = HttptoolsTransport(max_connections=4)
    if trusting:
        transport._tls = ssl.create_default_context(cafile=trusting)
    return httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(5.0, connect=connect), trust_env=False)


@on_both_loops
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))  # the environment does not change whom we believe
    async with Peer(answers(OK)).serving(certificate.server) as peer, open_client() as client:
        with pytest.raises(httpx2.ConnectError) as caught:
            await client.get(f"https://127.0.0.1:{peer.port}/")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@on_both_loops
async def test_a_certificate_for_another_host_is_refused(certificate: Certificate) -> None:
    async with (
        Peer(answers(OK)).serving(certificate.server) as peer,
        open_client(trusting=certificate.path) as client,
    ):
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"https://localhost:{peer.port}/")


@on_both_loops
async def test_a_trusted_connection_is_used_again_and_closed_when_a_call_is_given_up(certificate: Certificate) -> None:
    peer = Peer(answers(OK, times=2, then=answers(CHUNKED + b"2\r\nso\r\n")))
    async with peer.serving(certificate.server), open_client(trusting=certificate.path) as client:
        url = f"https://127.0.0.1:{peer.port}/"
        for _ in range(2):
            assert (await client.get(url)).text == "ok"
        async with client.stream("GET", url) as answer:
            assert await anext(answer.aiter_raw()) == b"so"
        await peer.until(lambda: peer.open == 0)
        assert peer.ever == 1


@on_both_loops
async def test_a_peer_that_speaks_no_tls_is_a_connect_error() -> None:
    async def plain(line: Line) -> None:
        await line.reader.read(1)
        await line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await line.until_left()

    async with Peer(plain).serving() as peer, open_client() as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"https://127.0.0.1:{peer.port}/")
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_a_handshake_that_hangs_is_a_timeout_and_leaves_no_socket() -> None:
    async with Peer(says_nothing).serving() as peer, open_client(connect=0.2) as client:
        with pytest.raises(httpx2.ConnectTimeout):
            await client.get(f"https://127.0.0.1:{peer.port}/")
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_a_call_cancelled_amid_its_handshake_leaves_no_socket() -> None:
    async with Peer(says_nothing).serving() as peer, open_client() as client:
        call = asyncio.create_task(client.get(f"https://127.0.0.1:{peer.port}/"))
        await peer.until(lambda: peer.open == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await peer.until(lambda: peer.open == 0)


@on_both_loops
async def test_a_refused_connection_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    async with calling(Peer(says_nothing)) as client:
        for _ in range(9):  # and costs no place in the pool
            with pytest.raises(httpx2.ConnectError):
                await client.get(f"http://127.0.0.1:{free}/")


@on_both_loops
async def test_an_address_that_leads_nowhere_does_not_keep_the_next_one_from_being_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Peer(answers(OK)).serving() as peer, calling(peer) as client:
        connect, abandoned = dialling._connect, asyncio.Event()

        async def some_hang(address: Address) -> socket.socket:
            if address[4] == "nowhere":
                try:
                    await asyncio.Event().wait()
                finally:
                    abandoned.set()
            return await connect(address)

        async def found(*_: object, **__: object) -> list[Address]:
            dead = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", "nowhere")
            return [dead, dead, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", peer.port))]

        monkeypatch.setattr(dialling, "_connect", some_hang)
        monkeypatch.setattr(dialling, "_resolve", found)

        assert (await client.get("/")).text == "ok"
        await abandoned.wait()


@on_both_loops
async def test_a_host_without_an_address_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(dialling, "_resolve", unknown)
    async with calling(Peer(says_nothing)) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("http://vendor.test/")


@on_both_loops
async def test_a_connection_that_takes_too_long_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Address) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(dialling, "_connect", hang)
    async with Peer(says_nothing).serving() as peer, calling(peer, connect=0.1) as client:
        with pytest.raises(httpx2.ConnectTimeout):
            await client.get("/")
