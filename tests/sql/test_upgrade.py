"""Tests what the DDL does to the ledger of an earlier version."""

from datetime import date

from jobs import ledger, schema

DAYS = [date(2026, 1, 1), date(2026, 1, 2)]


def test_markers_of_renamed_layers_still_count(empty_warehouse, monkeypatch):
    """Without them, an upgrade would make each date due that ran before it."""
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
