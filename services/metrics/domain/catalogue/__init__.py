"""The catalogue: metrics as data, checked when loaded, compiled into what the hot path calls.

`parse` turns a document into a `Catalogue`, or raises a `CatalogueError` that says everything that
is wrong and where; `lint` says the same without raising, with warnings. `layered` puts a tenant's
own metrics over the shipped ones. `Catalogue.contributions` is called for every record.

A metric of each stage (`for_each: stage`) is asked for as `<id>@<stage>`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from schemas.crm import Record
from services.metrics.domain import formulas
from services.metrics.domain.catalogue.entries import (
    COUNT,
    DURATION,
    MONEY,
    QUANTITY,
    RATIO,
    SECONDS,
    STAGE,
    Base,
    CatalogueError,
    Derived,
    Metric,
    Statistic,
    Visibility,
)
from services.metrics.domain.catalogue.lint import Mistake, is_derived, lint
from services.metrics.domain.catalogue.rules import (
    VERSION,
    Contribution,
    Contributions,
    Finding,
    compiled,
)

__all__ = [
    "COUNT",
    "DURATION",
    "MONEY",
    "QUANTITY",
    "RATIO",
    "SECONDS",
    "STAGE",
    "Base",
    "Catalogue",
    "CatalogueError",
    "Contribution",
    "Contributions",
    "Derived",
    "Finding",
    "Metric",
    "Mistake",
    "Statistic",
    "Visibility",
    "layered",
    "lint",
    "parse",
]

_JSON = msgspec.json.Encoder(order="sorted", decimal_format="string")


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metrics: list[Base]
    derived: list[Derived] = []


class Catalogue:
    """All metrics of an installation, or of one of its tenants.

    `digests` has a text for each record type that changes when its records contribute something
    else: the past is to be counted again.
    """

    def __init__(self, base: Sequence[Base], derived: Sequence[Derived]) -> None:
        self.base = {metric.id: metric for metric in base}
        self.derived = {metric.id: metric for metric in derived}
        self.metrics: dict[str, Metric] = {**self.base, **self.derived}
        of_type: dict[str, list[Base]] = {}
        for metric in base:
            of_type.setdefault(metric.record, []).append(metric)
        self.record_types = frozenset(of_type)
        self.digests = {record: _digest(metrics) for record, metrics in of_type.items()}
        #: What a record adds to each base metric, and what is wrong with it.
        self.contributions: Callable[[Record], Contributions] = compiled(base)

    def find(self, metric: str) -> Metric | None:
        """The metric of this id; of `<id>@<stage>` what it is for that stage."""
        name, at, stage = metric.partition(STAGE)
        found = self.metrics.get(name)
        if found is None or bool(at) is not (found.for_each is not None) or (at and not stage):
            return None
        if "\0" in stage:  # which no store can be asked for
            return None
        return self._of_stage(found, stage) if at else found

    def parts(self, metric: str) -> list[str]:
        """The base metrics that a metric is read from."""
        found = self._found(metric)
        if isinstance(found, Base):
            return [metric]
        if found.statistic is not None:
            return [found.statistic.median]
        return list(formulas.formula(found.formula or "").parts)

    def targets(self, metric: str) -> list[str]:
        """The metrics whose goals a metric is computed from."""
        found = self._found(metric)
        if isinstance(found, Base) or found.formula is None:
            return []
        return list(formulas.formula(found.formula).targets)

    def document(self) -> dict[str, Any]:
        """The document that this is the catalogue of."""
        return {
            "metrics": [_written(metric) for metric in self.base.values()],
            "derived": [_written(metric) for metric in self.derived.values()],
        }

    def _of_stage(self, metric: Metric, stage: str) -> Metric:
        """The metric of one stage."""

        def named(other: str) -> str:
            each = self.metrics.get(other)
            return f"{other}{STAGE}{stage}" if each is not None and each.for_each else other

        changed: dict[str, Any] = {"id": named(metric.id), "title": f"{metric.title}: {stage}"}
        if isinstance(metric, Derived) and metric.statistic is not None:
            changed["statistic"] = Statistic(named(metric.statistic.median))
        elif isinstance(metric, Derived) and metric.formula is not None:
            changed["formula"] = formulas.renamed(metric.formula, named)
        return msgspec.structs.replace(metric, **changed)

    def _found(self, metric: str) -> Metric:
        found = self.metrics.get(metric) or self.find(metric)
        if found is None:
            raise KeyError(metric)
        return found


def parse(document: object) -> Catalogue:
    """The catalogue of a parsed YAML document; raises `CatalogueError`."""
    _refuse(lint(document))
    try:
        checked = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:  # what lint should have said better
        raise CatalogueError(str(error)) from error
    return Catalogue(checked.metrics, checked.derived)


def layered(shipped: Catalogue, own: Iterable[Any]) -> Catalogue:
    """The shipped catalogue with one's own metrics, each a document, added or in place of others.

    Raises `CatalogueError` when one of them makes no sense there.
    """
    documents = list(own)
    onto = shipped.document()
    together: dict[str, Any] = {"metrics": [], "derived": []}
    for document in documents:
        if not isinstance(document, dict):
            _refuse(lint(document))
        together["derived" if is_derived(document) else "metrics"].append(document)
    replaced = {str(document.get("id")) for document in documents}
    for name, entries in together.items():
        entries[:0] = [each for each in onto[name] if each["id"] not in replaced]
    return parse(together)


def _refuse(mistakes: Iterable[Mistake]) -> None:
    errors = [str(each) for each in mistakes if each.severity == "error"]
    if errors:
        raise CatalogueError("; ".join(errors))


def _written(metric: Metric) -> dict[str, Any]:
    """The metric as a document would have it, without what is left to its default."""
    defaults: dict[str, Any] = {"description": "", "direction": "higher", "visibility": "everyone"}
    defaults |= {"part_only": False, "where": {}, "after": ""}
    written: dict[str, Any] = msgspec.to_builtins(metric)
    return {
        name: value
        for name, value in written.items()
        if value is not None and (name not in defaults or value != defaults[name])
    }


def _digest(metrics: Iterable[Base]) -> str:
    """The same text for the same rules, whatever they are called and in whatever order."""
    names = ("id", "unit", "where", "value", "placed_by", "after", "for_each")
    rules = sorted(_JSON.encode({n: getattr(m, n) for n in names}) for m in metrics)
    digest = hashlib.blake2b(f"{VERSION}\n".encode(), digest_size=16)
    for rule in rules:
        digest.update(rule + b"\n")
    return digest.hexdigest()
