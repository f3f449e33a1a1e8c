"""Third parties: webhook endpoints (Standard Webhooks), and how far Kafka says that we have come.

An endpoint is reached over https at a public address; the address that was checked is the one that
is connected to, so that a name can't be moved to the inside between the two. Loopback, with or
without TLS, is for development only. A receiver sees a message again, under the same `webhook-id`,
when we die between its answer and our commit.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from standardwebhooks import Webhook

from kit.settings import KitSettings
from schemas.base import valid_id
from schemas.spm import Alert
from schemas.topics import consumed_by
from services.notifications.domain.deliveries import MAX_RETRY_AFTER_SECONDS, Subscription
from services.notifications.domain.rules import Rules

MAX_ERROR_CHARACTERS = 300
MIN_SECRET_BYTES = 24  # what Standard Webhooks asks for
MAX_RETRY_AFTER_DIGITS = 9
GONE = 410


class InvalidEndpointsError(ValueError):
    """An endpoints file that can't be used; the message says where and why."""


class EndpointGoneError(Exception):
    """The receiver answered 410: it never wants to hear from us again."""


class EndpointError(Exception):
    """The message has not been taken. `asked_seconds` is how long the receiver wants to be left."""

    def __init__(self, reason: str, asked_seconds: int = 0) -> None:
        super().__init__(reason[:MAX_ERROR_CHARACTERS])
        self.asked_seconds = asked_seconds


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    tenant: str
    url: str
    secret: str
    rules: list[str] | Literal["all"] = "all"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: list[_Listed]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a tenant's messages go, and what they are signed with."""

    id: str
    tenant: str
    url: httpx.URL
    webhook: Webhook
    rules: frozenset[str] | None

    @property
    def subscription(self) -> Subscription:
        """What it wants to hear of."""
        return Subscription(self.tenant, self.id, self.rules)


def parse_endpoints(document: Any, rules: Rules, *, development: bool) -> list[Endpoint]:
    """The endpoints of a parsed file; raises `InvalidEndpointsError` that says what is wrong."""
    try:
        listed = msgspec.convert(document, _File).endpoints
    except msgspec.ValidationError as error:
        raise InvalidEndpointsError(str(error)) from error
    names = [(item.tenant, item.id) for item in listed]
    endpoints: list[Endpoint] = []
    for item in listed:
        try:
            if names.count((item.tenant, item.id)) > 1:
                raise ValueError("the id is used twice")  # noqa: TRY301  # one place adds the name
            endpoints.append(_endpoint(item, rules, development=development))
        except ValueError as error:
            raise InvalidEndpointsError(f"endpoint {item.id!r}: {error}") from error
    return endpoints


def _endpoint(item: _Listed, rules: Rules, *, development: bool) -> Endpoint:
    if not (valid_id(item.id) and valid_id(item.tenant)):
        raise ValueError("`id` and `tenant` are made of letters, digits and . _ : @ -")
    wanted = None if item.rules == "all" else frozenset(item.rules)
    unknown = (wanted or frozenset()) - rules.by_id.keys()
    if unknown:
        raise ValueError(f"no such rule: {', '.join(sorted(unknown))}")
    try:
        url = httpx.URL(item.url)
    except httpx.InvalidURL as error:
        raise ValueError(f"not a URL: {error}") from error
    if not url.host or url.userinfo:
        raise ValueError("`url` needs a host, and may not carry a user name")
    local = development and _is_loopback(url.host)
    if url.scheme != "https" and not (url.scheme == "http" and local):
        raise ValueError("`url` must be https (http only to loopback in development)")
    return Endpoint(item.id, item.tenant, url, _webhook(item.secret), wanted)


def _webhook(secret: str) -> Webhook:
    """The signer; the secret is given, or in an environment variable, or in a file."""
    if secret.startswith("env:"):
        secret = os.environ.get(secret.removeprefix("env:"), "")
    elif secret.startswith("file:"):
        try:
            secret = Path(secret.removeprefix("file:")).read_text().strip()
        except OSError as error:
            raise ValueError(f"the secret's file can't be read: {error.strerror}") from error
    if not secret.startswith("whsec_"):
        raise ValueError("the secret must begin with `whsec_`, also in its file or variable")
    with contextlib.suppress(Exception):  # binascii's and the library's own
        webhook = Webhook(secret)
        if len(webhook._whsecret) >= MIN_SECRET_BYTES:  # noqa: SLF001  # has no public length
            return webhook
    raise ValueError(f"the secret must be base64 of at least {MIN_SECRET_BYTES} bytes")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # leads to any IPv4 address, also inside ones


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address.sixtofour is not None or address in _NAT64
    ):
        return False
    return address.is_global and not address.is_multicast


class Sender:
    """Sends webhook messages. Redirects are failures; proxies of the environment aren't used."""

    def __init__(self, *, connect_seconds: float, answer_seconds: float, development: bool) -> None:
        self._development = development
        self._answer_seconds = answer_seconds
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(answer_seconds, connect=connect_seconds),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def send(self, endpoint: Endpoint, message: UUID, alert: Alert, severity: str) -> None:
        """Send one message; raises `EndpointGoneError` or `EndpointError` unless it was taken."""
        try:
            async with asyncio.timeout(2 * self._answer_seconds):  # however slowly it trickles
                response = await self._post(endpoint, message, _body(alert, severity))
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise EndpointError(f"{type(error).__name__}: {error}") from error
        if response.is_success:
            return
        if response.status_code == GONE:
            raise EndpointGoneError
        asked = _asked_seconds(response.headers.get("retry-after", ""))
        raise EndpointError(f"answered {response.status_code}", asked)

    async def _post(self, endpoint: Endpoint, message: UUID, body: str) -> httpx.Response:
        now = datetime.now(UTC)
        address = await self._address(endpoint.url)
        async with self._client.stream(
            "POST",
            endpoint.url.copy_with(host=address),
            content=body,
            headers={
                "host": endpoint.url.netloc.decode(),
                "content-type": "application/json",
                "user-agent": "pacesetter",
                "webhook-id": str(message),
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": endpoint.webhook.sign(str(message), now, body),
            },
            extensions={"sni_hostname": endpoint.url.host},
        ) as response:
            return response  # its body says nothing to us, and is never read

    async def _address(self, url: httpx.URL) -> str:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(
            url.host, port, type=socket.SOCK_STREAM
        )
        for *_, where in found:
            address = ipaddress.ip_address(where[0])
            if _is_public(address) or (self._development and address.is_loopback):
                return str(address)
        raise EndpointError(f"{url.host} has no public address; inside addresses are refused")


def _asked_seconds(retry_after: str) -> int:
    """How long the receiver wants to be left, within our limit; 0 when it doesn't say."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return 0
    if len(retry_after) > MAX_RETRY_AFTER_DIGITS:  # int() refuses thousands of digits
        return MAX_RETRY_AFTER_SECONDS
    return min(int(retry_after), MAX_RETRY_AFTER_SECONDS)


def _body(alert: Alert, severity: str) -> str:
    data = {
        "tenant": alert.tenant,
        "rule": alert.rule,
        "severity": severity,
        "subject": alert.subject,
        "window": alert.window,
        "state": alert.state,
        "title": alert.title,
        "text": alert.text,
        "evidence": alert.evidence,
        "audience": alert.audience,
        "raised_at": alert.raised_at,
    }
    message = {"type": "alert.firing", "timestamp": alert.raised_at, "data": data}
    return msgspec.json.encode(message).decode()


Ends = dict[TopicPartition, int]


class Progress:
    """Where the topics end, and whether the group has committed everything up to there."""

    def __init__(self, settings: KitSettings, *, service: str) -> None:
        self._group = settings.topic_prefix + service
        self._kafka = settings.kafka
        self._partitions = [
            TopicPartition(settings.topic_prefix + topic.name, number)
            for topic in consumed_by(service)
            for number in range(topic.partitions)
        ]
        self._reader: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def ends(self) -> Ends:
        """Where each partition ends that has anything in it."""
        if self._reader is None:
            self._reader = AIOKafkaConsumer(
                bootstrap_servers=self._kafka, enable_auto_commit=False, group_id=None
            )
            await self._reader.start()
        ends = await self._reader.end_offsets(self._partitions)
        starts = await self._reader.beginning_offsets(self._partitions)
        return {tp: end for tp, end in ends.items() if end > starts[tp]}

    async def reached(self, ends: Ends) -> bool:
        """Whether everything before these ends has been applied, by whichever replica."""
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka)
            await self._admin.start()
        committed = await self._admin.list_consumer_group_offsets(self._group)
        return all(tp in committed and committed[tp].offset >= end for tp, end in ends.items())

    async def close(self) -> None:
        """Disconnect; the next question connects again."""
        reader, admin, self._reader, self._admin = self._reader, self._admin, None, None
        if reader is not None:
            await reader.stop()
        if admin is not None:
            await admin.close()
