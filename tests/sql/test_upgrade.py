"""Tests what the DDL does to the ledger and the thresholds of an earlier version."""

from collections import Counter
from datetime import date
from decimal import Decimal

from jobs import ledger, schema

DAYS = [date(2026, 1, 1), date(2026, 1, 2)]


def test_markers_of_renamed_layers_still_count(empty_warehouse, monkeypatch):
    """Checks that an upgrade does not make the dates due that ran before it."""
    monkeypatch.setattr(ledger.warehouse, "process_connection", lambda: empty_warehouse)
    for day in DAYS:
        with ledger.run(empty_warehouse, "rejudged", "all", day, "") as row:
            ledger.settle(empty_warehouse, row, "")
    with ledger.run(empty_warehouse, "revalidated", "all", DAYS[1], "") as row:
        ledger.settle(empty_warehouse, row, "")
    assert ledger.marker("revalidated", "all", DAYS[0]) is None
    for _ in range(2):
        schema.apply(empty_warehouse)
        assert ledger.marker("revalidated", "all", DAYS[0])
        assert ledger.marker("revalidated", "all", DAYS[1])["run_id"] == row["run_id"]
    assert empty_warehouse.execute("select count(*) from ops.ledger where layer = 'revalidated'").fetchone() == (3,)


def test_a_warehouse_of_one_level_a_rule_becomes_one_of_several(empty_warehouse):
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(
            "drop view reports.reasons, reports.freshness, reports.files, reports.runs, ops.dates, ops.orphans, "
            "ops.tripped cascade; drop table ops.rules; create table ops.rules (dataset text, reason text, "
            "message text, retryable boolean, warn_share numeric, warn_rows bigint, stop_share numeric, "
            "stop_rows bigint); "
            "create view ops.tripped as select * from ops.rules"
        )
        for _ in range(2):
            empty_warehouse.execute(schema.ddl())
        found = empty_warehouse.execute(
            "select warn_share, warn_rows, stop_share, stop_rows from ops.rules where reason in ('rejected', %s)",
            ["orphan_patient_id"],
        ).fetchall()
    third, most = Decimal("0.3333333333333333"), Decimal("0.9")
    assert Counter(map(repr, map(tuple, found))) == {
        repr(([Decimal("0.05")], [20], [third, most], [50, 5])): 5,
        repr(([Decimal("0.05")], [20], None, None)): 1,
    }


def test_what_an_earlier_version_has_marked_stale_stays_so(empty_warehouse):
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(
            "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set, stale_since) "
            "values ('silver', 'visits', '2026-01-01', 'run', 'file', 'rules', now())"
        )
        turns = []
        for _ in range(2):
            empty_warehouse.execute(schema.ddl())
            turns += empty_warehouse.execute("select stale_turn from ops.receipts where run_id = 'run'").fetchone()
    assert turns[0] and turns[0] == turns[1]
