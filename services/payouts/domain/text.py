"""Plans as text: YAML or JSON into a plain document, with the line of everything in it.

Numbers with a fraction stay the text that was written, so that 0.1 is a tenth; so do days. Anchors,
aliases and repeated names are refused: what is read is what stands there.
"""

import re
from dataclasses import replace
from typing import Any

import yaml

from services.payouts.domain.plan import Plan, PlanError, Trouble, read

_INTEGER = re.compile(r"^-?(0|[1-9][0-9]{0,17})$")
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
MAX_DEPTH = 20

Lines = dict[str, int]


class _Loader(yaml.SafeLoader):
    """PyYAML's composer, without aliases and without endless depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self._refuse("anchors and aliases are not allowed")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._refuse("nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, what: str) -> None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        raise yaml.composer.ComposerError(None, None, what, event.start_mark)


def document_of(text: str) -> tuple[Any, Lines]:
    """The document in `text` and the line of each of its parts; raises `PlanError`."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        what = getattr(error, "problem", None) or str(error)
        raise PlanError([Trouble("text", f"not readable as YAML or JSON: {what}", line)]) from error
    finally:
        if loader is not None:
            loader.dispose()
    lines: Lines = {}
    troubles: list[Trouble] = []
    document = None if node is None else _value(node, "", lines, troubles)
    if troubles:
        raise PlanError(troubles)
    return document, lines


def plan_of(text: str) -> tuple[Plan, dict[str, Any]]:
    """The plan in `text`, and its document; raises `PlanError` with line numbers."""
    document, lines = document_of(text)
    try:
        return read(document), document
    except PlanError as error:
        raise PlanError([_located(trouble, lines) for trouble in error.troubles]) from None


def lint(text: str) -> list[Trouble]:
    """All that is wrong with the plan in `text`; empty when nothing is."""
    try:
        plan_of(text)
    except PlanError as error:
        return error.troubles
    return []


def _located(trouble: Trouble, lines: Lines) -> Trouble:
    """With the line of the nearest part that exists: a missing name is at its parent."""
    path = trouble.where
    while path and path not in lines:
        path = path.rpartition("." if path.rfind(".") > path.rfind("[") else "[")[0]
    return replace(trouble, line=lines.get(path, 1))


def _value(node: yaml.Node, path: str, lines: Lines, troubles: list[Trouble]) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, item in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if not _is_unicode(name):
                name = "?"
            where = f"{path}.{name}" if path else name
            if name in result:
                troubles.append(Trouble(where, "stands here twice", key.start_mark.line + 1))
            result[name] = _value(item, where, lines, troubles)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(item, f"{path}[{number}]", lines, troubles)
            for number, item in enumerate(node.value)
        ]
    text = str(node.value)
    if not _is_unicode(text):
        troubles.append(Trouble(path or "plan", "has half of a surrogate pair", lines[path]))
    if isinstance(node, yaml.ScalarNode) and not node.style:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.match(text):
            return int(text)
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
