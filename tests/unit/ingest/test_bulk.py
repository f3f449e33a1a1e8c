"""Files as rows, rows as messages, messages as facts; what is refused, and in which words."""

import importlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.publisher import Publisher, PublishError
from schemas.crm import Backfilled
from services.ingest.bulk import checkpoint, importing, rows
from services.ingest.bulk.checkpoint import CheckpointError, State
from services.ingest.bulk.messages import (
    MAX_BYTES,
    Cutter,
    Import,
    MappingError,
    default_name,
    document,
    encoded,
    is_name,
)
from services.ingest.bulk.rows import FileError, Format
from services.ingest.domain import imports, merge, readers
from services.ingest.domain.facts import Fact, Ignored, Outcome, Unreadable
from services.ingest.domain.imports import Row
from tests.unit.ingest.bodies import APP, RECEIVED_US

pa: Any = importlib.import_module("pyarrow")  # it has no types
pq: Any = importlib.import_module("pyarrow.parquet")

MAPPING = """
rules:
  - type: opportunity
    id: Id
    fields: {name: Name, amount: Amount, currency: Currency}
"""
AT = RECEIVED_US - 1_000_000
HEADER = "Id,Name,Amount,Currency\n"


def a_file(folder: Path, content: str | bytes, name: str = "deals.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, skip: int = 0, **options: Any) -> list[Row]:
    return list(rows.opened(path, **options).rows(skip=skip))


def plain(found: list[Row]) -> list[tuple[int, Any]]:
    """Numbers, and what stands there or what is wrong with it."""
    return [
        (row.row, row.problem or json.loads(bytes(row.data), parse_float=Decimal)) for row in found
    ]


def an_import(mapping: str = MAPPING, name: str = "deals.csv", at: int = AT) -> Import:
    return Import(name=name, source=APP, mapping=encoded(document(mapping)), at=at)


def outcomes(found: list[Row], what: Import | None = None) -> list[Outcome]:
    """What the consumer of the message makes of the rows."""
    message = (what or an_import()).message(found, began=RECEIVED_US)
    return [outcome for _, outcome in readers.read(message, APP)]


# CSV


def test_a_table_is_read_by_its_header_and_numbered_by_its_lines(tmp_path: Path) -> None:
    path = a_file(tmp_path, HEADER + '1,"Two\nlines",5.10,EUR\n\n2,"a ""b"", c",,\n')

    assert plain(read(path)) == [
        (2, {"Id": "1", "Name": "Two\nlines", "Amount": "5.10", "Currency": "EUR"}),
        (5, {"Id": "2", "Name": 'a "b", c'}),
    ]


def test_an_empty_cell_says_nothing_unless_the_mapping_says_that_it_clears(tmp_path: Path) -> None:
    path = a_file(tmp_path, "Id,Name\n1,\n")

    assert plain(read(path)) == [(2, {"Id": "1"})]
    assert plain(read(path, empty_clears=True)) == [(2, {"Id": "1", "Name": None})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_by_the_header(tmp_path: Path, delimiter: str) -> None:
    others = ",;\t|".replace(delimiter, "")
    path = a_file(tmp_path, f"Id{delimiter}Name\n1{delimiter}{others}\n")

    assert plain(read(path)) == [(2, {"Id": "1", "Name": others})]


def test_a_delimiter_is_not_guessed_between_two(tmp_path: Path) -> None:
    path = a_file(tmp_path, "Id;Name, first\n1;Jo\n")

    with pytest.raises(FileError, match="say which with --delimiter"):
        read(path)
    assert plain(read(path, delimiter=";")) == [(2, {"Id": "1", "Name, first": "Jo"})]
    tabs = a_file(tmp_path, "Id\tName\n1\tJo\n")
    assert plain(read(tabs, delimiter="tab")) == [(2, {"Id": "1", "Name": "Jo"})]
    with pytest.raises(FileError, match="one character"):
        read(path, delimiter=";;")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert plain(read(a_file(tmp_path, "\ufeffId\r\n1\r\n"))) == [(2, {"Id": "1"})]


def test_a_broken_row_of_a_table_is_a_problem_alone(tmp_path: Path) -> None:
    path = a_file(
        tmp_path,
        b'Id,Name\n1,a,b\n2\n3,M\xfcller\n4,"a"b\n5,' + b"x" * 300_000 + b"\n6,ok\n",
    )

    found = plain(read(path))
    assert [number for number, _ in found] == [2, 3, 4, 5, 6, 7]
    assert found[0][1] == "3 values, but the header has 2 columns"
    assert found[1][1] == "1 values, but the header has 2 columns"
    assert "save the file as UTF-8" in found[2][1]
    assert "not CSV" in found[3][1]
    assert "more than" in found[4][1]
    assert found[5][1] == {"Id": "6", "Name": "ok"}
    assert "M\\xfcller" in json.loads(bytes(read(path)[2].data))


def test_a_quote_that_never_ends_takes_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    path = a_file(tmp_path, 'Id,Name\n1,"' + "never\n" * 50_000)

    found = read(path)
    assert found[0].row == 2
    assert "field larger than field limit" in found[0].problem
    assert json.loads(bytes(found[0].data)).startswith('1,"never')
    assert found[-1].problem


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must be a header"),
        ("Id,Id\n1,2\n", "two columns are called 'Id'"),
        ("Id,,Name\n1,2,3\n", "column 2 has no name"),
        (b"Id,M\xfcller\n1,2\n", "not UTF-8"),
        ('"Id\n', "no CSV header"),
    ],
)
def test_a_table_without_a_usable_header_is_refused(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(FileError, match=words):
        read(a_file(tmp_path, content))


def test_a_file_of_unknown_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = a_file(tmp_path, "Id\n1\n", "deals.txt")

    with pytest.raises(FileError, match="say its format with --format"):
        read(path)
    assert plain(read(path, form=Format.csv)) == [(2, {"Id": "1"})]
    with pytest.raises(FileError, match="--delimiter is for CSV"):
        read(path, form=Format.jsonl, delimiter=";")


# JSON Lines


def test_json_stays_as_it_was_written(tmp_path: Path) -> None:
    lines = ['{"Id": 1, "Amount": 0.1000000000000000055511151231257827}', "", '{"Id":"2"}']
    path = a_file(tmp_path, "\ufeff" + "\n".join(lines), "deals.jsonl")

    found = read(path)
    assert [row.row for row in found] == [1, 3]
    assert [bytes(row.data).decode() for row in found] == [lines[0], lines[2]]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b"7",
        b'{"a": NaN}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud83d"}',
        b'{"a":' * 100_000,
        b'{"a": "' + b"x" * 300_000 + b'"}',
        b"x" * 2_000_000,
    ],
    ids=lambda line: line[:20].decode("latin-1"),
)
def test_a_broken_line_is_a_problem_alone(tmp_path: Path, line: bytes) -> None:
    path = a_file(tmp_path, b'{"Id": 1}\n' + line + b'\n{"Id": 2}', "deals.jsonl")

    first, bad, last = read(path)
    assert (first.problem, last.problem) == ("", "")
    assert bad.row == 2
    assert bad.problem
    assert len(bytes(bad.data)) < MAX_BYTES / 2
    assert last.row == 3


# Parquet


def a_parquet(folder: Path, table: Any, **options: Any) -> Path:
    path = folder / "deals.parquet"
    pq.write_table(table, path, **options)
    return path


def test_values_of_parquet_are_exact(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    table = pa.table(
        {
            "Id": pa.array([2**63 - 1, 2, 3]),
            "Amount": pa.array(
                [Decimal("12345678901234567890.10"), None, Decimal("0.10")], pa.decimal128(30, 2)
            ),
            "Changed": pa.array([when, None, when], pa.timestamp("us", "UTC")),
            "Fine": pa.array([1_767_323_045_678_901_234, None, 0], pa.timestamp("ns", "UTC")),
            "Rate": pa.array([0.5, float("nan"), float("inf")]),
            "Day": pa.array([when.date(), None, None]),
            "Name": pa.array(["a", "", None]),
        }
    )

    (_, one), (_, two), (_, three) = plain(read(a_parquet(tmp_path, table)))
    assert one == {
        "Id": 2**63 - 1,
        "Amount": Decimal("12345678901234567890.10"),
        "Changed": "2026-01-02T03:04:05.678901Z",
        "Fine": "2026-01-02T03:04:05.678901Z",
        "Rate": Decimal("0.5"),
        "Day": "2026-01-02",
        "Name": "a",
    }
    assert two == {"Id": 2}
    assert (str(three["Amount"]), three["Rate"]) == ("0.10", "inf")
    cleared = plain(read(a_parquet(tmp_path, table), empty_clears=True))[1][1]
    assert cleared["Amount"] is cleared["Name"] is cleared["Rate"] is None


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a Parquet file"):
        read(a_file(tmp_path, b"PAR1 and then nothing", "deals.parquet"))


def test_without_pyarrow_parquet_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(FileError, match="pip install pyarrow"):
        read(a_file(tmp_path, b"", "deals.parquet"))


@pytest.mark.parametrize("skip", [0, 1, 4, 5, 6, 10, 11])
def test_reading_goes_on_where_it_ended(tmp_path: Path, skip: int) -> None:
    lines = "".join(f"{n}\n" if n != 3 else "3,x\n" for n in range(10))
    table = pa.table({"Id": [str(n) for n in range(10)]})
    paths = [
        a_file(tmp_path, "Id\n\n" + lines),
        a_file(tmp_path, "".join(f'{{"Id": {n}}}\n\n' for n in range(10)), "deals.jsonl"),
        a_parquet(tmp_path, table, row_group_size=4),
    ]
    for path in paths:
        whole = read(path)
        assert len(whole) == 10
        assert read(path, skip=skip) == whole[skip:]


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    for path in (
        a_file(tmp_path, "Id\n1\n2\n\n"),
        a_file(tmp_path, '{"Id": 1}\n{"Id": 2}', "deals.jsonl"),
        a_parquet(tmp_path, pa.table({"Id": [1, 2, 3]})),
    ):
        file = rows.opened(path)
        assert list(file.rows())
        assert 0 < file.done == file.total


# Whatever a file holds


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=300)
    | st.lists(
        st.sampled_from([b"Id", b",", b";", b'"', b"\n", b"\r", b"1", b"\xff", b"\x00", b'""'])
    ).map(b"".join),
    form=st.sampled_from(Format),
)
def test_any_bytes_are_rows_or_refused_as_a_whole(
    tmp_path: Path, content: bytes, form: Format
) -> None:
    try:
        found = read(a_file(tmp_path, content, "any"), form=form)
    except FileError:
        return
    if found:
        said = outcomes(found)
        assert len(said) == len(found)
        assert all(isinstance(one, Fact | Ignored | Unreadable) for one in said)


# Messages


def a_row(number: int, **data: Any) -> Row:
    return Row(number, msgspec.Raw(json.dumps(data).encode()))


@pytest.mark.parametrize(
    ("given_rows", "messages"),
    [
        ([a_row(n, Id=n) for n in range(1234)], 3),
        ([a_row(n, Id=n, Name="x" * 200_000) for n in range(7)], 4),  # two large rows each
        ([], 0),
    ],
    ids=["many", "large", "none"],
)
def test_messages_are_cut_by_rows_and_bytes_and_hold_every_row_once(
    given_rows: list[Row], messages: int
) -> None:
    cutter = Cutter()
    found = [full for row in given_rows if (full := cutter.add(row))]
    found += [rest] if (rest := cutter.rest()) else []

    assert len(found) == messages
    assert [row for batch in found for row in batch] == given_rows
    for batch in found:
        assert len(batch) <= 500
        assert len(an_import().message(batch, began=1).body) <= MAX_BYTES


def test_an_id_follows_from_what_is_imported_as_what() -> None:
    batch = [a_row(2, Id=1), a_row(3, Id=2)]
    what = an_import()
    ids = [
        what.message(batch, began=5).id,
        what.message(batch, began=6).id,
        what.message(batch, began=5, digest="other").id,
        what.message(batch, began=5, part="1").id,
        what.message(batch[1:], began=5).id,
        an_import(name="other").message(batch, began=5).id,
        an_import(at=AT + 1).message(batch, began=5).id,
        an_import(MAPPING.replace("Name", "Title")).message(batch, began=5).id,
    ]

    assert len(set(ids)) == len(ids)
    assert ids[0] == an_import().message(batch[:1], began=5).id
    assert ids[0].startswith(f"{5:014x}")
    later = [what.message([a_row(n, Id=1)], began=5).id for n in (9, 10, 500, 2**33)]
    assert [ids[0], *later] == sorted([ids[0], *later])


def test_a_message_says_all_that_its_meaning_depends_on() -> None:
    sent = an_import().message([a_row(17, Id=1, Amount="5.10", Currency="EUR")], began=RECEIVED_US)
    received = type(sent).decode(sent.encode())

    ((index, fact),) = readers.read(received, APP)
    assert index == 0
    assert isinstance(fact, Fact)
    assert fact.fields["amount"].value == "5.10"
    assert fact.position == (AT, "deals.csv#000000000017")
    assert fact.vendor_event == "deals.csv#000000000017"


def test_a_row_stands_where_its_mapping_says_or_it_itself_or_else_the_import() -> None:
    by_row = Row(1, msgspec.Raw(b'{"Id": 1}'), AT - 7)
    mapped = MAPPING + "    at: Changed\n"
    (own,), (given_at,), (said,) = (
        outcomes([by_row]),
        outcomes([a_row(1, Id=1)]),
        outcomes([a_row(1, Id=1, Changed="2026-01-02T00:00:00Z")], an_import(mapped)),
    )

    assert isinstance(own, Fact)
    assert isinstance(given_at, Fact)
    assert isinstance(said, Fact)
    assert [own.position[0], given_at.position[0]] == [AT - 7, AT]
    assert said.position[0] == 1_767_312_000_000_000


def test_of_two_rows_about_one_record_the_later_line_wins() -> None:
    said = outcomes([a_row(99, Id=1, Name="old"), a_row(100, Id=1, Name="new")])
    facts = [one for one in reversed(said) if isinstance(one, Fact)]

    assert merge.of(facts).fields["name"].value == "new"


def test_what_can_not_be_read_is_told_with_the_imports_name_and_the_line() -> None:
    found = [
        a_row(7, Id=1, Amount="a lot"),
        Row(8, msgspec.Raw(b'"1,2,3"'), problem="3 values, but the header has 2 columns"),
        a_row(9, Name="no id"),
        a_row(10, Id=1),
    ]
    message = an_import().message(found, began=RECEIVED_US)
    said = readers.read(message, APP)

    reasons = [one.reason for _, one in said if isinstance(one, Unreadable)]
    assert reasons[0].startswith("deals.csv#7: ")
    assert "'a lot'" in reasons[0]
    assert reasons[1] == "deals.csv#8: 3 values, but the header has 2 columns"
    assert reasons[2].startswith("deals.csv#9: ")
    assert isinstance(said[3][1], Fact)


def test_a_row_put_aside_is_read_again_alone() -> None:
    message = an_import().message([a_row(7, Id=1), a_row(8, Id=1, Amount="x")], began=RECEIVED_US)
    _, (_, bad) = readers.read(message, APP)
    assert isinstance(bad, Unreadable)

    again = readers.alone(message, bad.raw)
    ((_, still),) = readers.read(again, APP)
    assert still == bad


def test_a_position_over_a_year_ahead_is_refused() -> None:
    ahead = Row(1, msgspec.Raw(b'{"Id": 1}'), RECEIVED_US + 500 * 86_400_000_000)

    (found,) = outcomes([ahead])
    assert isinstance(found, Unreadable)
    assert "after the request came in" in found.reason


@given(
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["row", "data", "at", "problem", "x"]), inner)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps([value]).encode()),
    headers=st.dictionaries(
        st.sampled_from(sorted(imports.HEADERS)), st.text(max_size=5) | st.just("{}")
    ),
)
def test_any_message_of_an_import_is_read_or_put_aside(body: bytes, headers: Any) -> None:
    message = an_import().message([a_row(1, Id=1)], began=RECEIVED_US)
    odd = msgspec.structs.replace(message, body=body, headers=message.headers | headers)

    assert all(isinstance(one, Fact | Ignored | Unreadable) for _, one in readers.read(odd, APP))


# Mappings and names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("rules: []", "rules"),
        ("[1]", "mapping"),
        (MAPPING + "items: deals", "every row is one"),
        ("rules:\n  - {type: deal, id: Id}", "'deal' is not a record type"),
        ("rules:\n  - {type: call, id: Id, fields: {x_a: " + "a" * 70_000 + "}}", "longer than"),
    ],
)
def test_a_mapping_is_refused_with_what_is_wrong_with_it(text: str, words: str) -> None:
    with pytest.raises(MappingError, match=words):
        document(text)


def test_keys_of_a_mapping_are_texts_as_they_are_in_messages() -> None:
    found = document(
        "rules:\n  - {type: call, id: Id, fields: {done: {path: S, map: {2: true, yes: false}}}}"
    )

    assert found["rules"][0]["fields"]["done"]["map"] == {"2": True, "true": False}
    assert msgspec.json.decode(encoded(found)) == found


@pytest.mark.parametrize("text", ["Deals Q3.csv", "ümläut.csv", "...", "x" * 500, "a/b"])
def test_any_files_name_gives_an_imports_name(text: str) -> None:
    assert is_name(default_name(text))


# Checkpoints


def a_state(**changes: Any) -> State:
    state = State(name="deals.csv", file="d", identity="i", began=1)
    return msgspec.structs.replace(state, **changes)


def test_a_checkpoint_survives_a_crash_while_it_is_written(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path / "deals.csv", "deals.csv", default=True)
    checkpoint.save(path, a_state(rows=5))
    (tmp_path / f"{path.name}.new").write_bytes(b"{")

    assert path.name == "deals.csv.import-state.json"
    assert checkpoint.load(path) == a_state(rows=5)
    assert checkpoint.load(tmp_path / "none") is None


def test_a_damaged_checkpoint_is_not_taken_for_none(tmp_path: Path) -> None:
    path = a_file(tmp_path, b"{", "state")

    with pytest.raises(CheckpointError, match="remove it if that is what you want"):
        checkpoint.load(path)


def test_an_import_goes_on_only_as_what_it_began() -> None:
    known, fresh = a_state(rows=7), a_state(began=9)

    assert checkpoint.resumed(None, fresh, again=False) == fresh
    assert checkpoint.resumed(known, fresh, again=False) == known
    with pytest.raises(CheckpointError, match="The file is not what"):
        checkpoint.resumed(known, a_state(file="other"), again=False)
    with pytest.raises(CheckpointError, match="The mapping, source or --at is not what"):
        checkpoint.resumed(known, a_state(identity="other"), again=False)


def test_a_repeat_begins_at_the_first_row_with_the_same_ids() -> None:
    known = a_state(rows=7, finished=True)

    assert checkpoint.resumed(known, a_state(began=9), again=True) == a_state(rows=0, began=1)
    other = a_state(file="other", began=9)
    assert checkpoint.resumed(known, other, again=True) == other


# The import


class Sent:
    """In the place of Kafka and of a checkpoint: what was done, in its order."""

    began, digest, total, done = RECEIVED_US, "", 0, 0

    def __init__(self, *batches: list[Row], fails: bool = False) -> None:
        self._batches = batches
        self._fails = fails
        self.steps: list[str] = []

    async def batches(self) -> AsyncIterator[tuple[str, list[Row]]]:
        for batch in self._batches:
            yield "", batch

    async def imported(self, _part: str, found: list[Row]) -> None:
        self.steps.append(f"remembered {len(found)}")

    async def finish(self) -> None:
        self.steps.append("finished")

    async def publish(self, messages: list[Backfilled]) -> None:
        if self._fails:
            raise PublishError
        self.steps += [f"sent {len(json.loads(message.body))}" for message in messages]


async def run_import(sent: Sent, rate: float = 0) -> int:
    publisher = cast("Publisher", sent)
    return await importing.run(an_import(), sent, publisher, rate=rate, show=lambda *_: None)


async def test_a_message_is_remembered_after_kafka_has_it() -> None:
    sent = Sent([a_row(1, Id=1)], [a_row(2, Id=2), a_row(3, Id=3)])

    assert await run_import(sent) == 3
    assert sent.steps == ["sent 1", "remembered 1", "sent 2", "remembered 2", "finished"]


async def test_what_kafka_has_not_acknowledged_is_not_remembered() -> None:
    sent = Sent([a_row(1, Id=1)], fails=True)

    with pytest.raises(PublishError):
        await run_import(sent)
    assert sent.steps == []


async def test_a_rate_is_kept() -> None:
    began = time.monotonic()
    await run_import(Sent(*[[a_row(n, Id=n)] for n in range(5)]), rate=20)

    assert time.monotonic() - began >= 4 / 20


# The guide


def test_the_guides_example_is_read_as_the_guide_says(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/import.md").read_text()
    table = guide.partition("```csv\n")[2].partition("```")[0]
    mapping = guide.partition("```yaml\n")[2].partition("```")[0]
    found = read(a_file(tmp_path, table))

    won, still_open, bad = outcomes(found, an_import(mapping))

    assert isinstance(won, Fact)
    assert isinstance(still_open, Fact)
    assert {name: won.fields[name].value for name in ("name", "status", "owner_id")} == {
        "name": "Acme, renewal",
        "status": "won",
        "owner_id": "12",
    }
    assert still_open.fields["status"].value == "open"
    assert isinstance(bad, Unreadable)
    assert bad.reason in guide
