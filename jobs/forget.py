"""Removes a date as if it had never run: `spark-submit jobs/forget.py 2062-03-04`."""

from datetime import date

from jobs import (
    bronze_files,
    gold_load,
    ledger,
    mart_build,
    object_store,
    program,
    removal,
    silver_partitions,
    warehouse,
)
from jobs.catalog import CATALOG


def forget(day: date) -> str:
    """Removes a date from silver, gold, bronze and the markers, in this order, and brings the marts up to date.

    The steps are those for a date whose files hold no rows. The same code as for a corrected file makes gold fall back
    on versions of other dates, and revalidates orphans. Bronze and the markers are removed last: until then the date is
    like any other, and after a crash the same command, or a run of the date, continues from what is left. Landing files
    and the ledger's history stay; one more row of the ledger says who asked. Raises Refused if another run brings the
    date back meanwhile.
    """
    with warehouse.connect() as connection:
        if not (ledger.knows(connection, day) or any(bronze_files.bronze_head(each, day) for each in CATALOG.values())):
            return f"{day} never ran: there is nothing to forget"
        object_store.remover()  # raises Refused for a key that may not delete, before anything is removed
        with ledger.run(connection, "forget", "all", day, "") as row:
            row["asked_by"] = program.user()
            ledger.note(connection, row)
            for dataset in reversed(CATALOG.values()):
                print(removal.empty(dataset, day), flush=True)
            for dataset in CATALOG.values():
                if others := [other for _, other, _ in ledger.stale(dataset)]:
                    print(silver_partitions.bronze_to_silver(dataset, *others), flush=True)
            for dataset in CATALOG.values():
                print(gold_load.silver_to_gold(dataset, day), flush=True)
            removal.remove_source(day)
            # A build of the marts needs a date: the newest that is left.
            print(mart_build.gold_to_marts(ledger.newest(connection) or day), flush=True)
            with connection.transaction():
                ledger.delete_markers(connection, day)
                ledger.note(connection, row | {"outcome": "done"})
    return f"{day} is forgotten; a landing file of it that stays comes in again with the next run of this date"


if __name__ == "__main__":
    program.run(forget, words=("date",))
