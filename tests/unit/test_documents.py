"""What is written down is true: cards, the map, decisions, links."""

import importlib
import re
from pathlib import Path

import pytest

from schemas.topics import BY_NAME, SERVICES, TOPICS

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
TOPIC = re.compile(r"\b(?:crm|spm)\.[a-z]+\.v\d+\b")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_card_lists_exactly_its_topics(service: str) -> None:
    card = importlib.import_module(f"services.{service}").__doc__ or ""
    consumes = set(TOPIC.findall(card.partition("Consumes")[2].partition("Publishes")[0]))
    publishes = set(TOPIC.findall(card.partition("Publishes")[2].partition("Owns")[0]))

    assert consumes == {topic.name for topic in TOPICS if service in topic.consumers}
    assert publishes == {topic.name for topic in TOPICS if topic.producer == service}


def test_the_map_shows_every_topic_with_its_key_and_readers() -> None:
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.count("|") > 5]
    rows = {row[1]: row for row in cells if TOPIC.fullmatch(row[1])}

    assert set(rows) == set(BY_NAME)
    for name, topic in BY_NAME.items():
        readers = SERVICES if rows[name][5] == "all" else tuple(rows[name][5].split(", "))
        assert rows[name][2] == topic.key
        assert rows[name][4] == topic.producer
        assert readers == topic.consumers


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_says_when_to_look_again_and_is_listed(page: Path) -> None:
    assert "**Revisit when**" in page.read_text()
    assert page.name in (ROOT / "docs/decisions/README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert missing == []
