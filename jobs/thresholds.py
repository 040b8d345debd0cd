"""Finds the thresholds that keep a date out of gold, and records who let a date pass."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from psycopg.rows import dict_row

from jobs import ledger, program
from jobs.catalog import CATALOG
from jobs.warehouse import Connection


def stops(connection: Connection, day: date | None = None) -> list[dict[str, Any]]:
    """Returns the rows of ops.tripped that keep current silver runs out of gold, of one date or of all."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select tripped.*, standing.bronze_sha256 from ops.tripped join ops.standing "
            "using (run_id, dataset, partition_date) where action = 'stop' and not overridden "
            "and partition_date = coalesce(%s, partition_date) and not exists (select from ops.receipts as gold "
            "where layer = 'gold' and gold.dataset = tripped.dataset "
            "and gold.partition_date = tripped.partition_date and gold.made_from = tripped.run_id) "
            "order by dataset, reason <> 'rejected', reason",
            [day],
        ).fetchall()


def stopped(levels: Sequence[dict[str, Any]]) -> ledger.Stopped:
    """Returns the error that names the thresholds that keep a date out of gold."""
    day = levels[0]["partition_date"]
    return ledger.Stopped(
        f"{'; '.join(map(ledger.in_words, levels))}; nothing of {day} goes to gold. See `make rejects DATE={day}`; "
        f"correct the file and run the date again, or let it pass as it is: `make run DATE={day} OVERRIDE=1`."
    )


def override(connection: Connection, stopped: Sequence[dict[str, Any]]) -> None:
    """Lets breached thresholds pass for the files that breached them; records in the ledger which, when and by whom."""
    for level in {level["dataset"]: level for level in stopped}.values():
        dataset = CATALOG[level["dataset"]]
        levels = [ledger.in_words(each) for each in stopped if each["dataset"] == dataset.name]
        with ledger.run(connection, "override", dataset.name, level["partition_date"], dataset.rule_set) as row:
            row |= {"overridden": "; ".join(levels), "asked_by": program.user()}
            ledger.settle(connection, row, level["bronze_sha256"])
