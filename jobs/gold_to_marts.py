"""Builds the marts from gold and holds them to the laws: `python jobs/gold_to_marts.py 2026-01-31`."""

from datetime import date

from jobs import marts, program, warehouse


def gold_to_marts(day: date) -> str:
    """All three marts in one transaction with their checks; `day` only names the run that asked for them."""
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, "marts"),
        warehouse.run(connection, "marts", "marts", day, marts.rule_set()) as row,
        connection.transaction(),
    ):
        warnings = warehouse.account_for(connection, day)
        rows = marts.rebuild(connection)
        try:
            marts.check(connection)
        except marts.LawBroken as error:
            raise program.Refused(f"{error} Nothing was published.") from error
        warehouse.settle(connection, row, warehouse.gold_state(connection))
    done = ", ".join(f"{mart} {count:,} rows" for mart, count in rows.items())
    return "\n".join([*warnings, f"marts: {done}"])


if __name__ == "__main__":
    program.run(gold_to_marts, words=("date",))
