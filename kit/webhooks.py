"""Signed messages to addresses that customers give (Standard Webhooks).

An address is reached over https, and is public or in a network that the operators have named; the
address that was checked is the one that is connected to, so that a name can't be moved to the
inside between the two. Loopback, with or without TLS, is for development only. Redirects are
failures, and proxies of the environment aren't used.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

MAX_ERROR_CHARACTERS = 300
MIN_SECRET_BYTES = 24  # what Standard Webhooks asks for

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # leads to any IPv4 address, also inside ones


class WebhookError(Exception):
    """The message has not been taken; says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:MAX_ERROR_CHARACTERS])


def signer(secret: str) -> Webhook:
    """What signs with this secret; raises ValueError when it can't be one."""
    if not secret.startswith("whsec_"):
        raise ValueError("a webhook's secret begins with `whsec_`")
    with contextlib.suppress(Exception):  # binascii's and the library's own
        webhook = Webhook(secret)
        if len(webhook._whsecret) >= MIN_SECRET_BYTES:  # noqa: SLF001  # has no public length
            return webhook
    raise ValueError(f"a webhook's secret is base64 of at least {MIN_SECRET_BYTES} bytes")


class Poster:
    """Posts messages, each within `answer_seconds` however slowly the answer trickles."""

    def __init__(
        self,
        *,
        connect_seconds: float,
        answer_seconds: float,
        development: bool,
        networks: Sequence[Network] = (),
    ) -> None:
        self._development = development
        self._answer_seconds = answer_seconds
        self._networks = networks
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(answer_seconds, connect=connect_seconds),
            follow_redirects=False,
            trust_env=False,
        )

    def url(self, text: str) -> httpx.URL:
        """The URL, if it is one that may be posted to; else ValueError."""
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise ValueError(f"not a URL: {error}") from error
        if not url.host or url.userinfo:
            raise ValueError("a URL needs a host, and may not carry a user name")
        local = self._development and _is_loopback(url.host)
        if url.scheme != "https" and not (url.scheme == "http" and local):
            raise ValueError("the URL must be https (http only to loopback in development)")
        return url

    async def post(
        self, url: httpx.URL, webhook: Webhook, number: str, body: bytes, media_type: str
    ) -> int:
        """Post a message under its id; its status where it was taken, else WebhookError."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                status = await self._status(url, webhook, number, body, media_type)
        except (httpx.HTTPError, OSError, ValueError) as error:  # ValueErrors: of odd names
            raise WebhookError(f"{type(error).__name__}: {error}") from error
        if not httpx.codes.is_success(status):
            raise WebhookError(f"answered {status}")
        return status

    async def _status(
        self, url: httpx.URL, webhook: Webhook, number: str, body: bytes, media_type: str
    ) -> int:
        now = datetime.now(UTC)
        address = await self._address(url)
        async with self._client.stream(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers={
                "host": url.netloc.decode(),
                "content-type": media_type,
                "user-agent": "pacesetter",
                "webhook-id": number,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": webhook.sign(number, now, body.decode()),
            },
            extensions={"sni_hostname": url.host},
        ) as response:
            return response.status_code  # the body says nothing to us, and is never read

    async def _address(self, url: httpx.URL) -> str:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(
            url.host, port, type=socket.SOCK_STREAM
        )
        for *_, where in found:
            address = ipaddress.ip_address(where[0])
            if self._may_reach(address):
                return str(address)
        raise WebhookError(f"{url.host} has no public address; inside addresses are refused")

    def _may_reach(self, address: _Address) -> bool:
        if address.is_loopback:
            return self._development
        return is_public(address) or any(address in network for network in self._networks)


def is_public(address: _Address) -> bool:
    """Whether the address is one of the internet, and can't stand for one that isn't."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address.sixtofour is not None or address in _NAT64
    ):
        return False
    return address.is_global and not address.is_multicast


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
