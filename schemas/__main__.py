"""Export and check the published language.

`python -m schemas export` writes JSON Schema for every topic and one AsyncAPI document;
`python -m schemas check` fails when the exported files are not current, or differ from those of
another git revision (`--against`) by more than optional additions.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from schemas.compat import breaking_changes
from schemas.topics import DEAD_LETTER_RETENTION_MS, TOPICS, Topic, dead_letter_name

HERE = Path(__file__).parent
Document = dict[str, Any]


def json_schema(topic: Topic) -> Document:
    """The JSON Schema (2020-12) of a topic's messages."""
    target = getattr(topic.event, "variants", topic.event)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": topic.name,
        "description": topic.about,
        **msgspec.json.schema(target),
    }


def asyncapi() -> Document:
    """All topics, their messages, who sends and who receives, as AsyncAPI 3.0."""
    channels: Document = {}
    operations: Document = {}
    for topic in TOPICS:
        channels[topic.name] = _channel(topic)
        reference = {"$ref": f"#/channels/{topic.name}"}
        operations[f"{topic.producer}.send.{topic.name}"] = {
            "action": "send",
            "channel": reference,
            "summary": topic.about,
        }
        for service in topic.consumers:
            dead = {"retention.ms": DEAD_LETTER_RETENTION_MS}
            operations[f"{service}.receive.{topic.name}"] = {
                "action": "receive",
                "channel": reference,
                "x-consumer-group": service,
                "x-dead-letters": dead_letter_name(topic.name, service),
                "x-dead-letter-config": dead,
            }
    info = {"title": "Pacesetter", "version": "1", "license": {"name": "Apache-2.0"}}
    return {
        "asyncapi": "3.0.0",
        "info": info,
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


def _channel(topic: Topic) -> Document:
    policy = ["compact"] if topic.compacted else ["delete"]
    kafka: Document = {"partitions": topic.partitions, "topicConfiguration": {}}
    kafka["topicConfiguration"]["cleanup.policy"] = policy
    if topic.retention_ms is not None:
        kafka["topicConfiguration"]["retention.ms"] = topic.retention_ms
    message = {
        "name": topic.event.__name__,
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"jsonschema/{topic.name}.json"},
        },
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}}},
    }
    return {
        "address": topic.name,
        "description": topic.about,
        "messages": {topic.event.__name__: message},
        "bindings": {"kafka": kafka},
    }


def exports() -> dict[Path, str]:
    """Every generated file and what belongs in it."""
    files = {HERE / "asyncapi.json": asyncapi()}
    for topic in TOPICS:
        files[HERE / "jsonschema" / f"{topic.name}.json"] = json_schema(topic)
    return {path: json.dumps(data, indent=2, sort_keys=True) + "\n" for path, data in files.items()}


def problems(against: str | None) -> list[str]:
    """Files that are not current, and changes that would break somebody."""
    found: list[str] = []
    for path, text in exports().items():
        name = path.relative_to(HERE)
        if not path.exists() or path.read_text() != text:
            found.append(f"{name}: not current; run `python -m schemas export`")
        if against and path.parent.name == "jsonschema":
            old = _at_revision(against, path)
            if old is not None:
                found += [f"{name}: {change}" for change in breaking_changes(old, json.loads(text))]
    return found


def _at_revision(revision: str, path: Path) -> Document | None:
    shown = subprocess.run(  # noqa: S603  # our own arguments
        ["git", "show", f"{revision}:schemas/jsonschema/{path.name}"],  # noqa: S607
        capture_output=True,
        check=False,
        cwd=HERE,
    )
    return json.loads(shown.stdout) if shown.returncode == 0 else None


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("export", help="write jsonschema/ and asyncapi.json")
    check = commands.add_parser("check", help="are the files current, and changes additive?")
    check.add_argument("--against", metavar="REVISION", help="git revision to compare with")
    arguments = parser.parse_args()
    if arguments.command == "export":
        for path, text in exports().items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote schemas/{path.relative_to(HERE)}")
        return 0
    found = problems(arguments.against)
    print("\n".join(found) or "schemas are current")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
