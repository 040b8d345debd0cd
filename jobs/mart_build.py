"""Builds the marts from gold, whole or in part, runs their checks, and settles the run."""

from datetime import date

from jobs import gold, ledger, marts, program, warehouse


def gold_to_marts(day: date) -> str:
    """Builds all marts in one transaction with their checks; `day` only names the run that asked for them.

    Rows that changes of gold did not touch stay as they are, unless gold was changed outside a load or `marts.forget`
    was called.
    """
    with (
        warehouse.connect() as connection,
        warehouse.writer(connection, "marts"),
        ledger.run(connection, "marts", "marts", day, marts.rule_set()) as row,
        connection.transaction(),
    ):
        warnings = gold.account_for(connection, day)
        made = lawful(connection, whole=bool(warnings))
        ledger.settle(connection, row, ledger.gold_state(connection))
    done = ", ".join(f"{mart} {in_words(mart, part)}" for mart, part in made.items())
    return "\n".join([*warnings, f"marts: {done}"])


def lawful(connection: warehouse.Connection, whole: bool) -> dict[str, marts.Made]:
    """Builds the marts; if a check fails after a build in part (a mart edited by hand, say), rebuilds all of them.

    Raises Refused if a check fails after a whole build.
    """
    try:
        made = marts.rebuild(connection) if whole else marts.refresh(connection)
        marts.check(connection)
    except marts.InvariantViolated as error:
        if whole:
            raise program.Refused(f"{error} Nothing was published.") from error
        return lawful(connection, whole=True)
    return made


def in_words(mart: str, made: marts.Made) -> str:
    """Returns how many rows of a mart were built, and for how many touched days or patients."""
    if made.touched is None:
        return f"{made.rows:,} rows"
    thing = "patients" if marts.PARTS[mart].touched == "patient_id" else "days"
    return f"{made.rows:,} rows of {made.touched:,} touched {thing}"
