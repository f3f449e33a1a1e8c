"""Where messages may be posted to, and what counts as taken."""

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator

import httpx
import pytest
from standardwebhooks import Webhook

from kit.webhooks import Poster, WebhookError, is_public, signer

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def a_poster(*, development: bool = True, networks: tuple[str, ...] = ()) -> Poster:
    return Poster(
        connect_seconds=1,
        answer_seconds=1,
        development=development,
        networks=[ipaddress.ip_network(network) for network in networks],
    )


class Receiver:
    """Answers each request with the next of `answers`; keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answers.pop(0))
        await writer.drain()
        if self.answers:
            await reader.read()  # an answer that doesn't come before the other side has gone
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    server = await asyncio.start_server(found, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


async def test_a_message_is_signed_under_its_id(receiver: Receiver) -> None:
    receiver.answers = [b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"]
    poster = a_poster()
    url = poster.url(f"http://localhost:{receiver.port}/hook")

    assert await poster.post(url, signer(SECRET), "m1", b'{"a":1}', "application/json") == 204
    head, _, body = receiver.requests[0].decode().partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert headers["webhook-id"] == "m1"
    assert headers["host"] == f"localhost:{receiver.port}"
    assert Webhook(SECRET).verify(body, headers) == {"a": 1}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"], "answered 500"),
        ([b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1/\r\n\r\n"], "answered 307"),
        ([b"nonsense\r\n\r\n"], "RemoteProtocolError"),
        ([b"", b""], "TimeoutError"),
    ],
)
async def test_anything_but_success_is_a_failure(
    receiver: Receiver, answers: list[bytes], why: str
) -> None:
    receiver.answers = answers
    poster = a_poster()
    url = poster.url(f"http://127.0.0.1:{receiver.port}")

    with pytest.raises(WebhookError, match=why):
        await poster.post(url, signer(SECRET), "m1", b"{}", "application/json")


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com",
        "ftp://127.0.0.1",
        "https://",
        "https://ann@example.com",
        "nonsense",
        "https://[::1",
        "https://" + "a" * 70_000,
    ],
)
def test_urls_that_may_not_be_posted_to_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        a_poster().url(text)


def test_plain_http_is_for_development() -> None:
    assert a_poster().url("http://127.0.0.1:1/").host == "127.0.0.1"
    with pytest.raises(ValueError, match="https"):
        a_poster(development=False).url("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "0.0.0.0", "localhost"],
)
async def test_inside_addresses_are_refused(host: str) -> None:
    poster = a_poster(development=False, networks=("192.168.1.0/24",))

    with pytest.raises(WebhookError, match="no public address"):
        await poster.post(poster.url(f"https://{host}/"), signer(SECRET), "m", b"{}", "text/plain")


async def test_a_network_of_ones_own_is_reached() -> None:
    poster = a_poster(development=False, networks=("192.0.2.0/24",))
    reached: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        reached.append(str(request.url))
        return httpx.Response(200)

    poster._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    url = poster.url("https://192.0.2.1:9/")
    await poster.post(url, signer(SECRET), "m", b"{}", "text/plain")

    assert reached == ["https://192.0.2.1:9/"]


async def test_a_name_that_cannot_be_looked_up_is_a_failure() -> None:
    poster = a_poster()
    url = poster.url("https://nowhere.invalid/")

    with pytest.raises(WebhookError):
        await poster.post(url, signer(SECRET), "m", b"{}", "text/plain")


@pytest.mark.parametrize(
    "address", ["::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808", "224.0.0.1", "fe80::1"]
)
def test_addresses_that_stand_for_others_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert is_public(ipaddress.ip_address("8.8.8.8"))


@pytest.mark.parametrize("secret", ["", "nonsense", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%"])
def test_a_secret_that_cannot_sign_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook's secret"):
        signer(secret)
