"""Shows that the benchmark's peers do the same work: each validates the examples of every rule as the platform does."""

import re

import pandas as pd
import pytest

from benchmarks import pandas_peer, peer
from jobs.catalog import CATALOG
from tests.spark.test_validation import MALFORMED
from tests.support.examples import EXAMPLES, PARENTS, VALID, record, versions


def by_pandas(path, dataset):
    parents = {column: pd.Series([PARENTS[parent]]) for column, parent in dataset.parents.items()}
    validated = pandas_peer.validate(*pandas_peer.read(path.read_bytes(), dataset), dataset, parents)
    return tuple(rows.astype(object).where(rows.notna(), None).to_dict("records") for rows in validated)


def by_duckdb(path, dataset):
    duckdb_peer = pytest.importorskip(
        "benchmarks.duckdb_peer", reason="DuckDB 2 needs Python 3.11", exc_type=ImportError
    )
    connection = duckdb_peer.connect()
    for parent in dataset.parents.values():
        connection.execute(f"create table accepted_{parent} as select '{PARENTS[parent]}' as {CATALOG[parent].key}")
    duckdb_peer.validate(connection, path, dataset)
    return tuple(
        connection.sql(f"select * from {kind}_{dataset.name}").to_arrow_table().to_pylist()
        for kind in ("accepted", "rejected")
    )


@pytest.fixture(params=[by_pandas, by_duckdb])
def validate(request, tmp_path):
    """Returns a function that validates records with one of the peers; it returns (accepted, rejected) rows."""

    def validate_records(name, records):
        dataset, path = CATALOG[name], tmp_path / "file.csv"
        path.write_text("\n".join([",".join(dataset.names), *records]) + "\n", newline="")
        return request.param(path, dataset)

    return validate_records


@pytest.mark.parametrize("name", CATALOG)
def test_a_peer_gives_each_example_the_same_reasons(validate, name):
    key = CATALOG[name].key
    rows = {f"X{n}": (VALID[name] | change, reasons) for n, (d, change, reasons) in enumerate(EXAMPLES) if d == name}
    # A key of its own keeps each example from being a duplicate, unless its key is what is blank.
    rows = {n if row[key] else None: (row | {key: row[key] and n}, reasons) for n, (row, reasons) in rows.items()}
    accepted, rejected = validate(name, [record(name, row) for row, _ in rows.values()])
    found = {row[key]: () for row in accepted} | {r[key]: tuple(r["_reject_reason"].split(";")) for r in rejected}
    assert len(accepted) + len(rejected) == len(rows)
    assert found == {number: reasons for number, (_, reasons) in rows.items()}


BROKEN = MALFORMED | {"an empty field too many": "P1,F,1980-02-29,Springfield,2024-03-01,"}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_peer_lets_a_malformed_record_stand_alone(validate, broken):
    sound = record("patients", VALID["patients"] | {"patient_id": "P0", "city": 'St. John\'s, "North"'})
    accepted, rejected = validate("patients", [sound, " ", broken])
    assert [row["patient_id"] for row in accepted] == ["P0"]
    assert [row["_reject_reason"] for row in rejected] == ["malformed_row"]
    assert broken.partition(",")[0] in rejected[0]["_raw"]


def test_with_a_peer_the_same_row_of_a_key_stands(validate):
    stay = VALID["admissions"]
    open_stay, broken = stay | {"discharge_ts": ""}, stay | {"room_type": "Suite", "discharge_ts": "2026-02-01T00:00"}
    accepted, rejected = validate("admissions", [record("admissions", row) for row in (open_stay, stay, broken, stay)])
    assert [row["discharge_ts"].isoformat() for row in accepted] == ["2026-01-08T09:00:00"]
    assert sorted(row["_reject_reason"] for row in rejected) == [
        "duplicate_admission_id",
        "duplicate_admission_id",
        "unknown_room_type",
    ]


@pytest.mark.parametrize("name", CATALOG)
def test_with_a_peer_the_version_stands_that_the_contract_names(validate, name):
    cases = list(versions(name))
    stand, _ = validate(name, [record(name, row) for row, _ in cases])
    accepted, rejected = validate(name, [record(name, row) for _, rows in cases for row in rows])
    assert sorted(map(repr, accepted)) == sorted(map(repr, stand)) and len(stand) == len(cases)
    assert len(rejected) == sum(len(rows) - 1 for _, rows in cases)
    assert {row["_reject_reason"] for row in rejected} == {f"duplicate_{CATALOG[name].key}"}


def test_the_peers_have_every_view_that_their_marts_read():
    statements = "".join(peer.tables())
    views = {name for select in peer.MARTS.values() for name in re.findall(r"ops\.\w+", select)}
    assert views and all(f"view {name} as" in statements for name in views)
