"""A mapping's document → its rules, or everything that is wrong with it, each with its place."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from schemas.crm import OPPORTUNITY, Scalar
from services.ingest.domain import fields, values
from services.ingest.domain.facts import BadEventError
from services.ingest.domain.fields import Convert
from services.ingest.domain.mapping.rules import (
    NEEDS_INTO,
    OPS,
    ActorKind,
    Choice,
    Condition,
    FieldRule,
    Map,
    Path,
    RelationRule,
    Rule,
    instant_of,
    path,
)

MAX_RULES = 100
MAX_KEYS = 1000  # of one mapping in a document
_TYPES: Mapping[str, Convert] = {
    "text": values.text,
    "amount": values.amount,
    "instant": values.instant,
    "bool": values.flag,
    "int": fields.whole,
    "currency": values.currency,
    "seconds": values.seconds,
    "milliseconds": values.seconds_from_ms,
}
_UNITS = get_args(values.Unit)
_ACTOR_KINDS = get_args(ActorKind)
_MINOR = (1, 10, 100, 1000, 10_000)
_RULE_KEYS = {
    *("when", "type", "id", "op", "at", "sequence", "event_id", "dedupe", "actor", "owner", "into"),
    *("completeness", "fields", "relations"),
}
_FIELD_KEYS = {"path", "value", "type", "unit", "map", "minor", "since"}
_NOWHERE = Path("", ())


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled document. With problems, its rules are not to be used."""

    items: tuple[str, ...]  # the way to the array of items in a body
    rules: tuple[Rule, ...]
    problems: tuple[str, ...]


class Compiler:
    """Makes rules of one document and collects what is wrong with it."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._empty_clears = True

    def plan(self, document: object) -> Plan:
        """The document's rules, or what is wrong with it."""
        found = self._keys(document, "mapping", {"items", "rules", "empty"})
        at = self._optional(found, "items", "mapping")
        steps = () if at is None else tuple(step for step in at.steps if isinstance(step, str))
        if at is not None and len(steps) < len(at.steps):
            self._wrong("mapping.items", "is the path of an array, by names: data.records")
        empty = found.get("empty", "cleared")
        if empty not in ("cleared", "unknown"):
            self._wrong("empty", "is cleared or unknown: what empty text says about a field")
        self._empty_clears = empty == "cleared"
        rules = self._list(found.get("rules"), "rules")
        if not rules:
            self._wrong("rules", "there must be at least one")
        if len(rules) > MAX_RULES:
            self._wrong("rules", f"{len(rules)} rules; at most {MAX_RULES} are taken")
        made = [self._rule(rule, f"rules[{n}]") for n, rule in enumerate(rules[:MAX_RULES])]
        return Plan(steps, tuple(one for one in made if one is not None), tuple(self._problems))

    def _rule(self, rule: object, place: str) -> Rule | None:
        found = self._keys(rule, place, _RULE_KEYS)
        for name in ("type", "id"):
            if name not in found:
                self._wrong(place, f"{name} is missing")
        if not {"type", "id"} <= set(found):
            return None
        kinds, kind = self._choice(found["type"], f"{place}.type")
        ops, op = self._choice(found["op"], f"{place}.op") if "op" in found else ([], None)
        self._check_words(kinds, ops, place)
        if "merged" in ops and "into" not in found:
            self._wrong(place, NEEDS_INTO)
        at, unit = self._at(found.get("at"), f"{place}.at")
        actor, actor_kind = self._actor(found.get("actor"), f"{place}.actor")
        completeness = found.get("completeness", "delta")
        if completeness not in ("delta", "snapshot"):
            self._wrong(f"{place}.completeness", "is delta or snapshot")
        return Rule(
            place,
            kind,
            self._path(found["id"], f"{place}.id") or _NOWHERE,
            op,
            when=self._when(found.get("when"), f"{place}.when"),
            at=at,
            unit=unit,
            sequence=self._optional(found, "sequence", place),
            event_id=self._optional(found, "event_id", place),
            dedupe=self._paths(found.get("dedupe"), f"{place}.dedupe"),
            actor=actor,
            actor_kind=actor_kind,
            into=self._optional(found, "into", place),
            completeness="snapshot" if completeness == "snapshot" else "delta",
            fields=self._fields(found, kinds, place),
            relations=self._relations(found.get("relations"), f"{place}.relations"),
        )

    def _check_words(self, kinds: Sequence[str], ops: Sequence[str], place: str) -> None:
        for kind in kinds:
            self._record_type(kind, f"{place}.type")
        for op in ops:
            if op not in OPS:
                self._wrong(f"{place}.op", f"{op!r:.60} is none of {', '.join(OPS)}")

    def _record_type(self, kind: object, place: str) -> None:
        try:
            fields.record_type(kind)
        except BadEventError as error:
            self._wrong(place, str(error))

    def _choice(self, value: object, place: str) -> tuple[list[str], Choice]:
        """A word, or {path, map}; with it the words that it can be, as far as they are known."""
        if isinstance(value, str):
            return [value], Choice(place, literal=value)
        found = self._keys(value, place, {"path", "map"})
        at = self._path(found.get("path"), f"{place}.path")
        turned = self._map(found.get("map"), f"{place}.map")
        words = [] if turned.of is None else [values.text(word) for word in turned.of.values()]
        return words, Choice(place, path=at, map=turned)

    def _at(self, value: object, place: str) -> tuple[Path | None, values.Unit]:
        if value is None:
            return None, "auto"
        if isinstance(value, str):
            return self._path(value, place), "auto"
        found = self._keys(value, place, {"path", "unit"})
        return self._path(found.get("path"), f"{place}.path"), self._unit(found, place)

    def _unit(self, found: Mapping[str, Any], place: str) -> values.Unit:
        unit = found.get("unit", "auto")
        if unit not in _UNITS:
            self._wrong(f"{place}.unit", f"is one of {', '.join(_UNITS)}")
            return "auto"
        return cast("values.Unit", unit)

    def _actor(self, value: object, place: str) -> tuple[Path | None, ActorKind]:
        if value is None:
            return None, "user"
        if isinstance(value, str):
            return self._path(value, place), "user"
        found = self._keys(value, place, {"path", "kind"})
        kind = found.get("kind", "user")
        if kind not in _ACTOR_KINDS:
            self._wrong(f"{place}.kind", f"is one of {', '.join(_ACTOR_KINDS)}")
        return self._path(found.get("path"), f"{place}.path"), cast("ActorKind", kind)

    def _fields(
        self, found: Mapping[str, Any], kinds: Sequence[str], place: str
    ) -> tuple[FieldRule, ...]:
        where = f"{place}.fields"
        given = self._keys(found.get("fields", {}), where, None)
        if "owner" in found:
            if "owner_id" in given:
                self._wrong(f"{place}.owner", "owner_id is among the fields; keep one of the two")
            given = {"owner_id": found["owner"], **given}
        if "status" in given:
            self._check_status(given, kinds, where)
        made = [self._field(name, spec, kinds, f"{where}.{name}") for name, spec in given.items()]
        return tuple(rule for rule in made if rule is not None)

    def _check_status(self, given: Mapping[str, Any], kinds: Sequence[str], place: str) -> None:
        if not kinds or ("lead" in kinds and len(set(kinds)) > 1):
            self._wrong(
                f"{place}.status",
                "means different things for a lead and a deal: give each type a rule of its own",
            )
        if (
            OPPORTUNITY in kinds
            and given["status"] != {"value": "open"}
            and "closed_at" not in given
        ):
            self._wrong(
                place,
                "status without closed_at: say where it stands when a deal was won or lost, or "
                "it would count on the day of its last change",
            )

    def _field(self, name: str, spec: object, kinds: Sequence[str], place: str) -> FieldRule | None:
        convert = self._converter(name, kinds, place)
        if not isinstance(spec, Mapping):
            at = self._path(spec, place)
            if at is None:
                return None
            return FieldRule(
                name, place, _noon_if_day(convert), at, empty_clears=self._empty_clears
            )
        found = self._keys(spec, place, _FIELD_KEYS)
        if ("path" in found) == ("value" in found):
            self._wrong(place, "needs path (where it stands) or value (the same for all)")
            return None
        if "value" in found and name == "currency":
            self._wrong(place, "is never the same for all by a mapping: set the source's currency")
        if "since" in found and name != "stage":
            self._wrong(f"{place}.since", "only a stage has one")
        convert = self._typed(found, name, convert, place)
        return FieldRule(
            name,
            place,
            convert,
            self._path(found["path"], f"{place}.path") if "path" in found else None,
            self._literal(found.get("value"), convert, place),
            self._map(found.get("map"), f"{place}.map"),
            self._optional(found, "since", place),
            self._empty_clears,
        )

    def _converter(self, name: str, kinds: Sequence[str], place: str) -> Convert:
        if name in fields.NAMES:
            kind = next((kind for kind in ("lead", "quote", "stage") if kind in kinds), "")
            return fields.converter(kind, name) or values.text
        try:
            own = values.own_name(name) == name
        except BadEventError:
            own = False
        if not own:
            near = ", ".join(sorted(fields.NAMES))
            self._wrong(place, f"is no field of ours: {near}, or x_ and a name of your own")
        return values.text

    def _typed(self, found: Mapping[str, Any], name: str, convert: Convert, place: str) -> Convert:
        kind, minor, unit = found.get("type"), found.get("minor"), self._unit(found, place)
        if kind is not None and not (isinstance(kind, str) and kind in _TYPES):
            self._wrong(f"{place}.type", f"is one of {', '.join(_TYPES)}")
        elif kind is not None and name in fields.NAMES:
            convert = self._own_type(kind, name, convert, place)
        elif kind is not None:
            convert = _TYPES[kind]
        if "unit" in found and convert is not values.instant:
            self._wrong(f"{place}.unit", "only an instant has one")
        if minor is None:
            return _noon_if_day(convert, unit)
        if convert is not values.amount:
            self._wrong(f"{place}.minor", "only an amount has one")
        if isinstance(minor, bool) or minor not in _MINOR:
            self._wrong(f"{place}.minor", f"is how many minor units make one: {_MINOR}")
        # By its exponent: a division could round.
        return lambda value: values.amount(f"{values.amount(value)}E-{_MINOR.index(minor)}")

    def _own_type(self, kind: str, name: str, convert: Convert, place: str) -> Convert:
        """A field of ours has its type; a duration may also be told in milliseconds."""
        if name == "duration_seconds" and kind in ("seconds", "milliseconds", "int"):
            return values.seconds_from_ms if kind == "milliseconds" else values.seconds
        if _TYPES[kind] is not convert and (kind, name) != ("text", "status"):
            self._wrong(f"{place}.type", f"{kind} is not what {name} is; leave the type away")
        return convert

    def _literal(self, value: object, convert: Convert, place: str) -> Scalar:
        if value is None:
            return None
        if not isinstance(value, str | int | bool):
            self._wrong(f"{place}.value", "is a text, a whole number, true or false")
            return None
        try:
            convert(value)
        except BadEventError as error:
            self._wrong(f"{place}.value", str(error))
        return value

    def _relations(self, value: object, place: str) -> tuple[RelationRule, ...]:
        made: list[RelationRule] = []
        for n, one in enumerate(self._list(value, place)):
            where = f"{place}[{n}]"
            found = self._keys(one, where, {"type", "id", "change", "primary"})
            kind = found.get("type")
            self._record_type(kind, f"{where}.type")
            change, primary = found.get("change", "added"), found.get("primary", False)
            if change not in ("added", "removed"):
                self._wrong(f"{where}.change", "is added or removed")
            if not isinstance(primary, bool):
                self._wrong(f"{where}.primary", "is true or false")
            at = self._path(found.get("id"), f"{where}.id")
            if at is not None:
                made.append(RelationRule(where, str(kind), at, change, primary is True))
        return tuple(made)

    def _when(self, value: object, place: str) -> tuple[Condition, ...]:
        made: list[Condition] = []
        for key, test in self._keys({} if value is None else value, place, None).items():
            where = f"{place}.{key}"
            at = self._path(key, where)
            if at is not None:
                made += self._conditions(at, test, where)
        return tuple(made)

    def _conditions(self, at: Path, test: object, place: str) -> list[Condition]:
        if not isinstance(test, Mapping):
            return [Condition(at, equal=self._words(test, place))]
        found = self._keys(test, place, {"equals", "in", "prefix", "exists", "not"})
        if not found:
            self._wrong(place, "says nothing: give equals, in, prefix, exists or not")
        made = [
            Condition(at, equal=self._words(found[name], f"{place}.{name}"))
            for name in ("equals", "in")
            if name in found
        ]
        if "prefix" in found:
            if not isinstance(found["prefix"], str):
                self._wrong(f"{place}.prefix", "is a text")
            made.append(Condition(at, prefix=str(found["prefix"])))
        if "exists" in found:
            if not isinstance(found["exists"], bool):
                self._wrong(f"{place}.exists", "is true or false")
            made.append(Condition(at, exists=found["exists"] is True))
        if "not" in found:
            made += self._negated(at, found["not"], f"{place}.not")
        return made

    def _negated(self, at: Path, test: object, place: str) -> list[Condition]:
        if isinstance(test, Mapping) and (len(test) != 1 or "not" in test):
            self._wrong(place, "is a value, or one of equals, in, prefix, exists")
            return []
        return [
            Condition(one.path, one.equal, one.prefix, one.exists, negated=True)
            for one in self._conditions(at, test, place)
        ]

    def _words(self, value: object, place: str) -> frozenset[str]:
        """Values to be equal to, as text, so that true is "true" of a table and 1 is "1"."""
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str | int | float) for word in words):
            self._wrong(place, "is a value or a list of values; for no value, use exists: false")
            return frozenset()
        return frozenset(values.text(word) for word in words)

    def _map(self, value: object, place: str) -> Map:
        if value is None:
            return Map()
        found = self._keys(value, place, None, texts=False)
        for key, word in found.items():
            if word is not None and not isinstance(word, str | int | bool):
                self._wrong(f"{place}.{key}", "is a text, a whole number, true, false or null")
        return Map(found)

    def _optional(self, found: Mapping[str, Any], name: str, place: str) -> Path | None:
        return self._path(found[name], f"{place}.{name}") if name in found else None

    def _paths(self, value: object, place: str) -> tuple[Path, ...]:
        found = [self._path(one, f"{place}[{n}]") for n, one in enumerate(self._list(value, place))]
        return tuple(one for one in found if one is not None)

    def _path(self, value: object, place: str) -> Path | None:
        found = path(value)
        if found is None:
            self._wrong(place, f"{value!r:.60} is not a path such as deal.items[0]['odd key']")
        return found

    def _list(self, value: object, place: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self._wrong(place, "is a list")
            return []
        return value

    def _keys(
        self,
        value: object,
        place: str,
        allowed: Collection[str] | None,
        *,
        texts: bool = True,
    ) -> dict[str, Any]:
        """A mapping by text, with no other keys than these."""
        if not isinstance(value, Mapping):
            known = f" with {', '.join(sorted(allowed))}" if allowed else ""
            self._wrong(place, f"is a mapping{known}")
            return {}
        if len(value) > MAX_KEYS:
            self._wrong(place, f"{len(value)} keys; at most {MAX_KEYS} are taken")
            return {}
        found: dict[str, Any] = {}
        for key, one in value.items():
            if (texts and not isinstance(key, str)) or not isinstance(key, str | int | float):
                self._wrong(place, f"the key {key!r:.60} is not a text; put it into quotes")
            elif allowed is not None and key not in allowed:
                self._wrong(place, f"{key!r:.60} is not known; use {', '.join(sorted(allowed))}")
            else:
                found[values.text(key)] = one
        return found

    def _wrong(self, place: str, words: str) -> None:
        self._problems.append(f"{place}: {words}")


def _noon_if_day(convert: Convert, unit: values.Unit = "auto") -> Convert:
    """For an instant, a day without a time is its noon."""
    if convert is not values.instant:
        return convert

    return lambda value: values.instant_or_noon(instant_of(value), unit)
