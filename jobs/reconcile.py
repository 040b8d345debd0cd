"""Compares a partition of silver and gold with its file: `spark-submit jobs/reconcile.py visits 2026-01-31`."""

from datetime import date

from jobs import gold_load, ledger, program, silver_partitions, warehouse
from jobs.dataset import Dataset

LAYERS = "silver", "gold"


def reconcile(dataset: Dataset, day: date) -> str:
    """Validates all records of a partition's file and loads all its rows, and corrects silver and gold if they differ.

    When parents come or go, a large partition is validated and loaded by key. The result must be that of its whole
    file. Raises Refused if it was not, once it is corrected.
    """
    with (
        warehouse.connect() as connection,
        ledger.run(connection, "reconciliation", dataset.name, day, dataset.rule_set) as row,
    ):
        if ledger.stale(dataset, day):
            print(silver_partitions.bronze_to_silver(dataset, day), flush=True)
        if day in ledger.behind(connection, dataset):
            print(gold_load.silver_to_gold(dataset, day), flush=True)
        before = {layer: ledger.current_run(connection, layer, dataset, day) for layer in LAYERS}
        print(silver_partitions.bronze_to_silver(dataset, day), flush=True)
        print(gold_load.silver_to_gold(dataset, day, whole=True), flush=True)
        now = {layer: ledger.current_run(connection, layer, dataset, day) for layer in LAYERS}
        if differing := [layer for layer in LAYERS if before[layer] != now[layer]]:
            raise program.Refused(
                f"{' and '.join(differing)} of {dataset.name} {day} did not have the rows that the file gives by the "
                f"present rules and parents; they are corrected. Give `make reconcile DATE={day}` again, and report it "
                "if that fails too."
            )
        ledger.settle(connection, row, now["silver"] or "")
    return f"{dataset.name} {day}: silver and gold have the rows that its whole file gives"


if __name__ == "__main__":
    program.run(reconcile)
