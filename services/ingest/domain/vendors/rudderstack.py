"""RudderStack: Segment's events, forwarded unmodified; a static header is all that proves them."""

from services.ingest.domain import shared_secrets
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Vendor, bare_alone, segment


def problems(source: Source) -> list[str]:
    """The header is whichever was configured there."""
    return [] if source.header else ["rudderstack needs header: the one that carries the secret"]


VENDOR = Vendor(
    name="rudderstack",
    title="RudderStack",
    count=segment.count,
    split=segment.split,
    read=segment.read,
    alone=bare_alone,
    verify=shared_secrets.verify,
    settings=frozenset({"header", "query", "username", "mapping"}),
    problems=problems,
    stages_decide=True,
)
