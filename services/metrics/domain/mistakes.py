"""What boards and contests have in common in what can be wrong with their documents."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches

from schemas.base import valid_id
from services.metrics.domain.catalogue import Catalogue, Derived, Mistake
from services.metrics.domain.scopes import Scope

MAX_DIGITS, MAX_PLACES = 12, 9  # of an amount, before and after its point


def under(place: str, mistake: Mistake) -> Mistake:
    """The same mistake in a larger document."""
    where = ".".join(filter(None, (place, mistake.where)))
    return replace(mistake, where=where)


def plain(document: object) -> object:
    """A document of YAML with its dates as text, which is how JSON has them."""
    if isinstance(document, dict):
        return {key: plain(value) for key, value in document.items()}
    if isinstance(document, list):
        return [plain(value) for value in document]
    return document.isoformat() if isinstance(document, date | datetime) else document


def metric_mistakes(names: Iterable[str], where: str, catalogue: Catalogue) -> Iterator[Mistake]:
    """Names that the catalogue doesn't have, or that aren't sums of records."""
    for name in names:
        metric = catalogue.find(name)
        if metric is None:
            near = get_close_matches(name, catalogue.metrics, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield Mistake(where, f"{name!r} is not in the catalogue{meant}")
        elif isinstance(metric, Derived) and metric.statistic is not None:
            what = f"{name!r} is a statistic of single records, which boards can't follow live"
            yield Mistake(where, what)


def amount_mistakes(amounts: Iterable[tuple[str, Decimal | None]]) -> Iterator[Mistake]:
    """Numbers that can't be meant, and that exact arithmetic would be busy with for hours."""
    for where, amount in amounts:
        if amount is None:
            continue
        exponent = amount.as_tuple().exponent  # text for what is no number
        if (
            not isinstance(exponent, int)
            or exponent < -MAX_PLACES
            or amount.adjusted() >= MAX_DIGITS
        ):
            what = f"expected a number below 10^{MAX_DIGITS}, of {MAX_PLACES} places"
            yield Mistake(where, f"{str(amount)[:40]}: {what} at most")


def scope_mistakes(scope: Scope, subjects: str) -> Iterator[Mistake]:
    """Conditions that say nothing about such subjects, and names that can't be."""
    allowed = {"team": {"teams"}, "territory": {"territories"}}.get(subjects)
    named = {
        "teams": scope.teams,
        "territories": scope.territories,
        "roles": scope.roles,
        "people": scope.people,
    }
    said = {name for name, values in named.items() if values}
    said |= {"tenure"} if scope.tenure is not None else set()
    for name in sorted(said - (allowed or said)):
        yield Mistake(f"scope.{name}", f"says nothing about `subjects: {subjects}`")
    for name, values in named.items():
        for value in values:
            if name != "roles" and not valid_id(value):
                yield Mistake(f"scope.{name}", f"{value!r}: use letters, digits and ._:@-")
    tenure = scope.tenure
    if tenure is not None and (
        tenure.at_least < 0 or (tenure.below is not None and tenure.below <= tenure.at_least)
    ):
        yield Mistake("scope.tenure", "expected 0 <= at_least < below, in days since joining")
