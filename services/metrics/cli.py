"""What the command line can do with metrics: lint.

`services/__main__.py` knows these commands on every call; the service is loaded when one is run.
"""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

cli = typer.Typer(no_args_is_help=True, help="Look after the metrics that are measured.")

_Lines = dict[str, int]  # by path in the document


@cli.callback()
def group() -> None:
    """Look after the metrics that are measured."""


@cli.command("lint")
def lint_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Metrics (YAML).")],
    *,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="The file replaces the shipped catalogue, and adds nothing."),
    ] = False,
) -> None:
    """Check a catalogue, or one metric, that is to be added to what is shipped.

    Every line says where in the file something is, and what to write instead. Warnings are about
    metrics that work but can't be meant so. Exits with 1 when there is an error.
    """
    catalogue = importlib.import_module("services.metrics.domain.catalogue")
    settings = importlib.import_module("services.metrics.settings").Settings
    try:
        document, lines = _read(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        typer.echo(f"{file}: not readable as YAML: {error}")
        raise typer.Exit(1) from error
    onto = None
    if not alone:
        shipped: Path = settings.model_fields["catalogue"].default
        onto = yaml.safe_load(shipped.read_text())
    found: list[Any] = catalogue.lint(document, onto)
    for mistake in sorted(found, key=lambda each: _line(each.where, lines)):
        place = f"{file}:{_line(mistake.where, lines)}"
        typer.echo(f"{place}: {mistake.severity}: {mistake}")
    errors = sum(mistake.severity == "error" for mistake in found)
    typer.echo(f"{_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}")
    raise typer.Exit(1 if errors else 0)


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _read(text: str) -> tuple[object, _Lines]:
    """The document and the line of everything in it; raises `yaml.YAMLError`."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: _Lines = {}
        if node is None:
            return None, lines
        _find_lines(node, "", lines)
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _find_lines(node: yaml.Node, where: str, lines: _Lines) -> None:
    lines[where] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            name = str(key.value)
            if name in names:
                raise yaml.composer.ComposerError(
                    None, None, f"{name!r} stands here twice", key.start_mark
                )
            names.add(name)
            below = f"{where}.{name}" if where else name
            _find_lines(value, below, lines)
            lines[below] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _find_lines(value, f"{where}[{number}]", lines)


def _line(where: str, lines: _Lines) -> int:
    """The line of the nearest part that exists: what is missing is missing from its parent."""
    while where and where not in lines:
        where = where[: max(where.rfind("."), where.rfind("["), 0)]
    return lines.get(where, 1)
