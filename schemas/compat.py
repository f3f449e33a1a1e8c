"""Whether a change of a message's JSON Schema is one that old messages and readers survive.

Within a major version only optional properties may be added. `breaking_changes` compares two
exported schemas and names every other difference in words.
"""

from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = {"title", "description", "default", "examples"}


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What in `new` would break a message or a reader of `old`; empty when it is additive."""
    found: list[str] = []
    _compare(old, new, old, new, "", found, set())
    return found


def _compare(
    old: Schema,
    new: Schema,
    old_root: Schema,
    new_root: Schema,
    where: str,
    found: list[str],
    walked: set[tuple[str, str]],
) -> None:
    references = (old.get("$ref", ""), new.get("$ref", ""))
    if any(references):
        if references in walked:
            return
        walked.add(references)
    old, new = _resolve(old, old_root), _resolve(new, new_root)
    _compare_properties(old, new, old_root, new_root, where, found, walked)
    for branch in ("anyOf", "oneOf"):
        before, after = old.get(branch, []), new.get(branch, [])
        if len(after) < len(before):
            found.append(f"{where or 'message'}: a variant was removed")
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            _compare(one, other, old_root, new_root, f"{where}<{index}>", found, walked)
    for child in ("items", "additionalProperties"):
        if isinstance(old.get(child), dict) and isinstance(new.get(child), dict):
            _compare(old[child], new[child], old_root, new_root, f"{where}[]", found, walked)
    ignored = _ANNOTATIONS | {
        *("properties", "required", "anyOf", "oneOf", "items", "additionalProperties"),
        *("$defs", "$ref", "discriminator"),
    }
    for name in sorted((set(old) | set(new)) - ignored):
        if old.get(name) != new.get(name):
            place = where or "message"
            found.append(f"{place}: {name} changed from {old.get(name)!r} to {new.get(name)!r}")


def _compare_properties(
    old: Schema,
    new: Schema,
    old_root: Schema,
    new_root: Schema,
    where: str,
    found: list[str],
    walked: set[tuple[str, str]],
) -> None:
    before, after = old.get("properties", {}), new.get("properties", {})
    prefix = f"{where}." if where else ""
    for name in before:
        place = f"{prefix}{name}"
        if name not in after:
            found.append(f"{place}: removed")
        else:
            _compare(before[name], after[name], old_root, new_root, place, found, walked)
    required_before, required_after = set(old.get("required", [])), set(new.get("required", []))
    became = sorted(required_after - required_before)
    no_longer = sorted((required_before - required_after) & set(after))
    found.extend(f"{prefix}{name}: became required" for name in became)
    found.extend(f"{prefix}{name}: no longer required" for name in no_longer)


def _resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = root.get("$defs", {}).get(name, {})
    return schema
