"""A secret that the sender only repeats, where nothing is signed: header, query or HTTP Basic.

Where it is expected is the source's configuration. It proves who sends, not what: use TLS.
"""

import secrets

from services.ingest.domain import signatures
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError


def verify(arrival: Arrival, source: Source) -> str:
    """The method by which the request has shown one of the source's secrets."""
    if source.header:
        given = arrival.headers.get(source.header.lower())
        if given is not None and signatures.matches(given, source.secrets):
            return f"{source.vendor}.header"
    if source.query:
        given = arrival.query.get(source.query)
        if given is not None and signatures.matches(given, source.secrets):
            return f"{source.vendor}.query"
    authorization = arrival.headers.get("authorization", "")
    if source.username and signatures.is_basic(source.secrets, source.username, authorization):
        return f"{source.vendor}.basic"
    raise RefusedError(
        f"Send the source's secret in {' or '.join(_places(source))}, exactly as it is configured.",
        challenge='Basic realm="pacesetter"' if source.username else "",
    )


def new() -> str:
    """A secret of our making; Zoho takes no more than 50 characters."""
    return secrets.token_urlsafe(32)


def problems(source: Source) -> list[str]:
    """A source must say where its secret is expected."""
    if source.header or source.query or source.username:
        return []
    what = "where the secret is sent: a request header, a query parameter, or a Basic user"
    return [f"{source.vendor} needs header, query or username, {what}"]


def _places(source: Source) -> list[str]:
    places = [f"the header {source.header}"] if source.header else []
    places += [f"the query parameter {source.query}"] if source.query else []
    return places + ([f"HTTP Basic as {source.username}"] if source.username else [])
