"""Sources: what their file may say and when it changes, their secrets at rest, their rates."""

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from kit.kafka import partition_for
from services.ingest.api.receive import MOMENT_US, as_received
from services.ingest.domain.rates import Limiter
from services.ingest.domain.sealing import Seal, SealError, keys_of
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, all_vendors
from services.ingest.gateway import FaultsError, Sources, SourcesError, checked, parse
from tests.unit.ingest.bodies import RECEIVED_US

HUB = "- {id: hub, tenant: acme, vendor: hubspot, secrets: [one]}\n"


def test_secrets_come_from_files_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("HUB_SECRET", "from-env")

    found = parse(
        "- {id: hub, tenant: acme, vendor: hubspot, "
        f"secrets: ['env:HUB_SECRET', 'file:{tmp_path / 'secret'}', plain], "
        "stages: {won: ['1']}}"
    )

    assert found["hub"].secrets == ("from-env", "from-file", "plain")
    assert found["hub"].stages.status_of("1") == "won"
    assert found["hub"].stages.status_of("closedlost") == "lost"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not YAML"),
        ("hub: 1", "expected a list"),
        ("- {id: hub, tenant: acme, vendor: sap, secrets: [a]}", "source 1"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: [a], typo: 1}", "typo"),
        ("- {id: 'a:b', tenant: acme, vendor: hubspot, secrets: [a]}", "id must be"),
        ("- {id: hub, tenant: 'a/b', vendor: hubspot, secrets: [a]}", "tenant is not an id"),
        ("- {id: hub, tenant: acme, vendor: hubspot}", "needs secrets"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: ['']}", "secret is empty"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: ['env:NOT_SET_HERE']}", "not set"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: ['file:/nowhere']}", "secret file"),
        ("- {id: hub, tenant: acme, vendor: pipedrive, secrets: [a]}", "needs a username"),
        (HUB + HUB, "is taken"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(SourcesError, match=words):
        parse(text)


def test_a_change_is_seen_and_a_bad_one_leaves_the_last_good(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(HUB)
    sources = Sources(path)
    sources.load()
    assert _secrets(sources) == ("one",)

    _write(path, HUB.replace("one", "two"), 1)
    assert _secrets(sources) == ("two",)

    _write(path, "{", 2)
    assert _secrets(sources) == ("two",)

    path.unlink()
    assert _secrets(sources) == ("two",)


def test_without_a_file_there_are_no_sources() -> None:
    sources = Sources(None)
    sources.load()

    assert sources.get("hub") is None


def _secrets(sources: Sources) -> tuple[str, ...]:
    source = sources.get("hub")
    assert source is not None
    return source.secrets


def _write(path: Path, text: str, tick: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(tick * 10**9, tick * 10**9))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"rate": -1}, "rate: Expected `float` >= 0"),
        ({"rate": float("nan")}, "rate: Expected"),
        ({"rate": 0.001}, "at least 0.01"),
        ({"mapping": {"rules": 1}}, "mapping: "),
        ({"api": {"requests_per_second": 0}}, "api: Expected"),
        ({"currency": "Euro"}, "currency 'Euro' is not a code such as EUR"),
        ({"currency": "eur"}, "currency 'eur'"),
        (
            {"types": {"2-5": "Abo!"}},
            "types: '2-5': 'Abo!' is not a record type: these",
        ),
        ({"header": "x-secret"}, "header has no effect for hubspot, which has account, api"),
        ({"mapping": {"rules": []}}, "mapping has no effect for hubspot"),
    ],
)
def test_odd_values_are_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(FaultsError, match=words):
        checked({"id": "hub", "tenant": "acme", "vendor": "hubspot", "secrets": ["s"]} | entry, str)


MINIMAL: dict[str, Any] = {"secrets": ["s"], "header": "x", "query": "q", "username": "u"}


@pytest.mark.parametrize("vendor", sorted(all_vendors()))
def test_every_vendor_says_which_settings_it_has_and_which_types_there_are(vendor: str) -> None:
    own = all_vendors()[vendor].settings
    entry: dict[str, Any] = {"id": "s", "tenant": "acme", "vendor": vendor}
    entry |= {name: value for name, value in MINIMAL.items() if name in own | {"secrets"}}
    if "mapping" in own:
        entry["mapping"] = {"rules": [{"type": "call", "id": "id"}]}

    assert checked(entry, str).vendor == vendor
    with pytest.raises(FaultsError, match=r"types: 'Deal': 'deal' is not a record type: .*call"):
        checked(entry | {"types": {"Deal": "deal"}}, str)
    for name, value in MINIMAL.items():
        if name not in own | {"secrets"}:
            known = ", ".join(sorted(own))
            with pytest.raises(FaultsError, match=f"{name} has no effect for {vendor}.*{known}"):
                checked(entry | {name: value}, str)


def test_all_faults_come_at_once_and_none_shows_a_secret() -> None:
    entry = {"id": "a:b", "vendor": "sap", "secrets": ["hidden"], "typo": 1}

    with pytest.raises(FaultsError) as caught:
        checked(entry, str)

    for word in ("id must be", "sap", "typo", "tenant is missing"):
        assert word in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_gets_into_logs_has_no_secrets() -> None:
    entry = {"id": "hub", "tenant": "acme", "vendor": "hubspot", "secrets": ["hidden"]}
    source = checked(entry | {"api": {"token": "hidden"}}, str)

    assert "hidden" not in repr(source)


def test_the_first_key_seals_and_every_key_opens() -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    sealed = Seal([old]).seal("word")

    assert "word" not in sealed
    assert Seal(keys_of(f"{new},\n{old}")).open(sealed) == "word"
    with pytest.raises(SealError, match="not in INGEST_SECRETS_KEY"):
        Seal([new]).open(sealed)
    with pytest.raises(SealError, match="not set"):
        Seal().open(sealed)
    with pytest.raises(SealError, match="openssl"):
        Seal(["short"])


@given(
    rate=st.floats(0.1, 50),
    steps=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_never_more_comes_through_than_the_rate_and_one_burst(
    rate: float, steps: list[float]
) -> None:
    limiter, now, taken = Limiter(), 0.0, 0
    for step in steps:
        now += step
        wait = limiter.wait([("a", rate), ("free", 0)], now)
        taken += not wait
        if wait:
            assert limiter.wait([("a", rate)], now + wait) == 0, "what it says is enough"
            taken += 1
            now += wait

    assert taken <= now * rate + max(1, rate) + 1e-3


def test_a_request_that_is_refused_for_one_name_counts_for_none() -> None:
    limiter = Limiter()
    assert limiter.wait([("tight", 1)], 0) == 0

    assert limiter.wait([("tight", 1), ("wide", 2)], 0) > 0
    assert [limiter.wait([("wide", 2)], 0) == 0 for _ in range(3)] == [True, True, False]


def test_requests_of_one_moment_share_a_partition_and_moments_take_turns() -> None:
    source = Source(id="hub", tenant="acme", vendor="hubspot")
    arrival = Arrival(method="POST", url="", headers={}, query={}, body=b"", now_ms=0)

    def partitions(moment: int) -> set[int]:
        began = RECEIVED_US + moment * MOMENT_US
        made = [as_received(source, arrival, "", now_us=began + n) for n in range(100)]
        assert len({one.id for one in made}) == len(made)
        return {partition_for(one.key.encode(), 8) for one in made}

    found = [partitions(moment) for moment in range(8)]

    assert all(len(each) == 1 for each in found)
    assert set().union(*found) == set(range(8))
