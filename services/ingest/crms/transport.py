"""One source's way to its CRM: credentials, rate, limits, and errors that say what to do.

A token is got by client credentials or a refresh token, and got again once when the CRM answers
401. What a refresh token was good for is kept where every process finds it (`grants`), because many
CRMs replace the refresh token each time and never take the former one again. Nothing secret is in
an error, in a log or in an answer.

Requests are spread by the source's rate, counted per process. When a CRM says that its limit is
reached, it is left alone for as long as it says. Bodies are read up to a limit, redirects are not
followed, and only https is spoken, except to a loopback address. A source that was made by API asks
its vendor's own hosts and no others, since whoever made it need not be an operator of this network.
"""

import asyncio
import base64
import ipaddress
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from kit.clock import Micros, real_micros
from services.ingest.domain.sources import Api, Source

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of a page; what is kept on a topic is cut smaller
ANSWER_SECONDS = 60.0  # in all, however slowly it trickles
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 10.0  # where a CRM limits us and doesn't say for how long
MAX_PAUSE_SECONDS = 3600.0
TOKEN_SECONDS = 1800.0  # where it isn't said
MAX_TOKEN_SECONDS = 86_400.0  # whatever is said: then it is got again
EARLY_SECONDS = 60.0  # before its end a token isn't used any more
MAX_REASON = 200  # characters of what the CRM says is wrong
SEARCHED = 64 * 1024  # bytes of it, for secrets that it repeats
UNAUTHORISED, FORBIDDEN, LIMITED, UNAVAILABLE = 401, 403, 429, 503
SERVER_ERROR = 500
_DIVISIBLE = frozenset({400, 404, 413, 414, 422})
ATTEMPTS = 3  # of a question: with the token in hand, with another process's, with a new one
LEAST_RATE = 0.02  # requests per second: whoever waits longer than that loses what it has leased
_RESET = re.compile(r"\breset\s*=\s*(\d{1,9})")
_REMAINING = re.compile(r"\bremaining\s*=\s*(\d{1,9})")


class CrmError(Exception):
    """The CRM did not give an answer; the words say what to check."""


class RefusedError(CrmError):
    """One question that can't be answered; others may be.

    `divisible`: it may be because of one of the records that were asked for.
    """

    def __init__(self, words: str, *, divisible: bool = False) -> None:
        super().__init__(words)
        self.divisible = divisible


class UnavailableError(CrmError):
    """No question of this source can be answered now: the CRM, the way to it or its credentials."""


class LimitedError(CrmError):
    """The CRM wants to be left alone for so many seconds."""

    def __init__(self, words: str, seconds: float) -> None:
        super().__init__(words)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and when it was asked for: nothing newer is in it."""

    method: str
    url: str
    body: bytes
    asked_us: int


def _bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a vendor's API is, and how one proves oneself there."""

    url: str = ""  # empty: each account has its own
    oauth: str = ""  # where tokens are had
    domains: tuple[str, ...]  # the vendor's own, with all hosts in them
    token_header: Callable[[str], tuple[str, str]] = _bearer  # of a token that is configured
    address: str = ""  # the member of the token's answer that says where the account's API is
    client_by_basic: bool = False
    # A refusal that is a limit all the same.
    is_limit: Callable[[int, bytes], bool] = lambda status, _: status == LIMITED


class Grant(msgspec.Struct, frozen=True):
    """What a CRM has given: a token to ask with, and the refresh token that comes after."""

    access_token: str
    refresh_token: str
    until_us: int
    url: str = ""
    number: int = 1  # more with every exchange, so that the newest is known

    def __repr__(self) -> str:
        """Without what is secret: it may get into a log."""
        return f"Grant({self.number})"


class Place:
    """Where a source's grant lies; this one ends with the process."""

    def __init__(self, grant: Grant | None = None) -> None:
        self.grant = grant

    async def keep(self, grant: Grant) -> None:
        """Put a newer one there."""
        self.grant = grant


# The place of a source's grant, for one at a time among all who share it.
Places = Callable[[Source], AbstractAsyncContextManager[Place]]


def _nowhere(_source: Source) -> AbstractAsyncContextManager[Place]:
    return nullcontext(Place())


class Session:
    """Asks one source's CRM."""

    def __init__(
        self,
        source: Source,
        door: Door,
        *,
        confined: bool = False,  # to the vendor's domains
        places: Places = _nowhere,
        now_us: Micros = real_micros,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        assert source.api is not None
        self.source = source
        self.confined = confined
        self.http: httpx.AsyncClient | None = None  # lent by whoever asks
        self.kept: dict[str, tuple[float, Any]] = {}  # what clients remember of the CRM for a while
        self._api = source.api
        self._door = door
        self._now_us = now_us
        self.now = now
        self._places = places
        self._grant: Grant | None = None
        self._got = ""  # the access token that this session got last
        self._refused = ""  # and the one that the CRM didn't take any more
        self._getting = asyncio.Lock()
        self._free_at = 0.0
        self._paused_until = 0.0
        self._limits = 0  # in a row

    @property
    def paused(self) -> bool:
        """Whether the CRM wants to be left alone."""
        return self.now() < self._paused_until

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask one question; raises a `CrmError` unless it is answered."""
        for attempt in range(ATTEMPTS):
            grant = await self._proof()
            await self._turn()
            # With the path: what a CRM answers may be part of it, and must not name another host.
            url = self._checked(self._base(grant) + path, "api.url")
            request = self._http().build_request(
                method,
                url,
                params=params,
                content=None if json is None else msgspec.json.encode(json),
                headers={
                    "accept": "application/json",
                    **({} if json is None else {"content-type": "application/json"}),
                    **(headers or {}),
                    **dict([_header(self._api.token, grant, self._door)]),
                },
            )
            asked = self._now_us()
            status, given, body = await self._send(request)
            if status == UNAUTHORISED and grant is not None:
                self._refused = grant.access_token
                # One that another process got earlier may have ended as well; a new one is final.
                is_new = attempt > 0 and grant.access_token == self._got
                if not is_new and attempt < ATTEMPTS - 1:
                    continue
            self._note(status, given, body)
            return Answer(method, str(request.url), body, asked)
        raise AssertionError

    def _http(self) -> httpx.AsyncClient:
        assert self.http is not None
        return self.http

    def _base(self, grant: Grant | None) -> str:
        found = self._api.url or (grant.url if grant is not None else "") or self._door.url
        if not found:
            raise UnavailableError("the source's api needs a url: each account has its own")
        return found.rstrip("/")

    def _is_local(self) -> bool:
        """Whether the source is configured with an API on this machine, as for a rehearsal."""
        try:
            return _is_loopback(httpx.URL(self._api.url).host)
        except httpx.InvalidURL:
            return False

    def _checked(self, url: str, name: str) -> str:
        """The address, when this source may speak to it."""
        domains = self._door.domains if self.confined else ()
        problem = _problem(url, name, local=self._is_local(), domains=domains)
        if problem:
            raise UnavailableError(problem)
        return url

    async def _turn(self) -> None:
        """Wait until the source's rate allows one more request."""
        if self.paused:
            raise LimitedError("the CRM's limit is reached", self._paused_until - self.now())
        now = self.now()
        begin = max(now, self._free_at)
        self._free_at = begin + 1 / max(self._api.requests_per_second, LEAST_RATE)
        if begin > now:
            await asyncio.sleep(begin - now)

    async def _send(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._http().send(request, stream=True)
                try:
                    body = bytearray()
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > MAX_ANSWER_BYTES:
                            raise RefusedError(
                                f"the answer has over {MAX_ANSWER_BYTES:,} bytes", divisible=True
                            )
                finally:
                    await response.aclose()
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise UnavailableError(f"no answer: {type(error).__name__}") from error
        return response.status_code, response.headers, bytes(body)

    def _note(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        """Keep to what the answer says of limits; raise unless it is one."""
        if self._door.is_limit(status, body) or (
            status == UNAVAILABLE and "retry-after" in headers
        ):
            self._limits += 1
            seconds = _asked_seconds(headers) or FIRST_PAUSE_SECONDS * 2 ** min(self._limits, 8)
            seconds = min(seconds, MAX_PAUSE_SECONDS)
            self._paused_until = self.now() + seconds
            raise LimitedError(f"answered {status}: its limit is reached", seconds)
        if is_success(status):
            self._limits = 0
            if _is_used_up(headers):
                self._paused_until = self.now() + min(_asked_seconds(headers), MAX_PAUSE_SECONDS)
            return
        words = f"answered {status}: {self._said(body)}"
        if status == UNAUTHORISED:
            raise UnavailableError(f"{words}. Check the credentials in the source's api")
        if status >= SERVER_ERROR:
            raise UnavailableError(words)
        raise RefusedError(words, divisible=status in _DIVISIBLE)

    def _said(self, body: bytes) -> str:
        """The beginning of what the CRM says, without what is secret should it repeat it."""
        words = " ".join(body[:SEARCHED].decode(errors="replace").split())
        secret = [self._api.token, self._api.client_secret, self._api.refresh_token]
        if self._grant is not None:
            secret += [self._grant.access_token, self._grant.refresh_token]
        for one in filter(None, secret):
            words = words.replace(one, "…")
        return "".join(char for char in words if char.isprintable())[:MAX_REASON]

    async def _proof(self) -> Grant | None:
        """What to ask with; None where a token is configured."""
        if self._api.token:
            return None
        async with self._getting:
            if not self._is_good(self._grant):
                await self._turn()
                if self._api.refresh_token:
                    self._grant = await self._refreshed()
                else:
                    self._grant = await self._granted({"grant_type": "client_credentials"})
            return self._grant

    def _is_good(self, grant: Grant | None) -> bool:
        return (
            grant is not None
            and grant.access_token != self._refused
            and self._now_us() < grant.until_us
        )

    async def _refreshed(self) -> Grant:
        """The newest grant: the one of whoever was faster, or else another.

        A refresh token may be good only once, so that nobody else has it meanwhile.
        """
        async with self._places(self.source) as place:
            known = [grant for grant in (place.grant, self._grant) if grant is not None]
            newest = max(known, key=lambda grant: grant.number, default=None)
            if newest is not None and self._is_good(newest):
                return newest
            self._grant = newest
            token = self._api.refresh_token if newest is None else newest.refresh_token
            form = {"grant_type": "refresh_token", "refresh_token": token}
            number = 1 if newest is None else newest.number + 1
            # Known here before it is kept there, which may fail.
            self._grant = await self._granted(form, number)
            await place.keep(self._grant)
            return self._grant

    async def _granted(self, form: Mapping[str, str], number: int = 1) -> Grant:
        api, door = self._api, self._door
        where = self._checked(api.token_url or door.oauth, "api.token_url")
        headers = {"accept": "application/json"}
        if door.client_by_basic:
            headers |= dict([basic(api.client_id, api.client_secret)])
        else:
            form = {**form, "client_id": api.client_id, "client_secret": api.client_secret}
        request = self._http().build_request("POST", where, data=form, headers=headers)
        status, given, body = await self._send(request)
        if not is_success(status) and not door.is_limit(status, body):
            raise UnavailableError(
                f"no token: answered {status}: {self._said(body)}. Check client_id, client_secret "
                "and refresh_token in the source's api"
            )
        self._note(status, given, body)
        try:
            found = _decode_token(body)
        except msgspec.DecodeError as error:
            raise UnavailableError("no token: the answer has no access_token") from error
        self._got = found.access_token
        lasts = min(found.expires_in or TOKEN_SECONDS, MAX_TOKEN_SECONDS)
        # One that lasts shorter than that is used for half of its time.
        seconds = max(lasts - EARLY_SECONDS, lasts / 2)
        return Grant(
            found.access_token,
            found.refresh_token or form.get("refresh_token", ""),
            self._now_us() + int(seconds * 1_000_000),
            getattr(found, door.address, "") or "",
            number,
        )


class _TokenAnswer(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None
    instance_url: str | None = None
    api_domain: str | None = None


_decode_token = msgspec.json.Decoder(_TokenAnswer, strict=False).decode


def is_success(status: int) -> bool:
    """Whether a status is one of 2xx."""
    return 200 <= status < 300  # noqa: PLR2004


def basic(user: str, password: str) -> tuple[str, str]:
    """The header of HTTP Basic."""
    return "Authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _header(configured: str, grant: Grant | None, door: Door) -> tuple[str, str]:
    return door.token_header(configured) if grant is None else _bearer(grant.access_token)


def foreign(api: Api, door: Door) -> list[str]:
    """What is wrong with the addresses of a source that is made by API."""
    given = {"api.url": api.url, "api.token_url": api.token_url}
    found = [_problem(url, name, domains=door.domains) for name, url in given.items() if url]
    return [problem for problem in found if problem]


def _problem(url: str, name: str, *, local: bool = False, domains: Sequence[str] = ()) -> str:
    """Why one may not speak to an address; empty when one may."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        return f"{name} is not a URL"
    if not found.host or found.userinfo:
        return f"{name} needs a host, and may not carry a user name"
    if domains and not any(f".{found.host}".endswith(f".{domain}") for domain in domains):
        return f"{name} must be at {' or '.join(domains)}; the sources file may name other hosts"
    plain = found.scheme == "http" and _is_loopback(found.host) and local
    if found.scheme != "https" and not plain:
        return f"{name} must be https (http only where api.url is loopback)"
    return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_used_up(headers: httpx.Headers) -> bool:
    """Whether this was the last request that is free for now."""
    combined = _REMAINING.search(headers.get("ratelimit", ""))
    named = ("x-ratelimit-remaining", "x-hubspot-ratelimit-remaining")
    found = combined[1] if combined else next((headers[n] for n in named if n in headers), "")
    return found.isdecimal() and int(found[:9]) == 0


def _asked_seconds(headers: httpx.Headers) -> float:
    """How long a CRM wants to be left alone, however it says so; 0 when it doesn't."""
    after = headers.get("retry-after", "")
    if after and not after.isdecimal():
        try:
            return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return 0.0
    combined = _RESET.search(headers.get("ratelimit", ""))
    found = after or (combined[1] if combined else "") or headers.get("x-ratelimit-reset", "")
    if found.isdecimal():
        return float(found[:9])
    interval = headers.get("x-hubspot-ratelimit-interval-milliseconds", "")
    return int(interval[:9]) / 1000 if interval.isdecimal() else 0.0


def new_client() -> httpx.AsyncClient:
    """What all sessions of a process share: connections, and nothing of any source."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=False,
        headers={"user-agent": "pacesetter"},
    )
