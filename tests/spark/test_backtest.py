"""Checks that a backtest publishes nothing, and predicts exactly the results of a run under the changed declaration."""

import os
import re
from collections import Counter, defaultdict
from dataclasses import replace

from jobs.catalog import CATALOG
from jobs.dataset import Rule
from jobs.marts import columns_of, selects
from tests.flow.test_flow import call

DATASETS = ("patients", "visits", "admissions", "billing")
MARTS = [name for name in selects() if "." not in name]
MEANS = r"avg_.*|.*_pct|.*_years"


def verdicts(spark, hospital):
    """Returns this hospital's accepted rows by dataset, date and key, and its rejected records by text."""
    from jobs import delta_tables

    accepted, rejected = {}, Counter()
    for name in DATASETS:
        dataset, of_year = CATALOG[name], f"year(_partition_date) = {hospital.year}"
        for row in (
            delta_tables.silver(spark, dataset).filter(of_year).select("_partition_date", *dataset.names).collect()
        ):
            accepted[name, row[0], row[1]] = tuple(row)
        rows = delta_tables.silver(spark, dataset, "rejected").filter(of_year)
        for day, text, codes in rows.select("_partition_date", "_raw", "_reject_reason").collect():
            rejected[name, day, text, codes] += 1
    return accepted, rejected


def flips_between(before, after):
    """Returns the changed verdicts between two states of silver, by the texts of records and the values of keys."""
    from jobs.dry_run import ACCEPTED, CHANGED, OTHERWISE, REJECTED

    (was_accepted, was), (accepted, would) = before, after
    texts, found, came = defaultdict(lambda: [Counter(), Counter()]), Counter(), set()
    for side, rejected in enumerate((was, would)):
        for (name, day, text, codes), rows in rejected.items():
            texts[name, day, text][side][codes] += rows
    for (name, day, text), (one, other) in texts.items():
        more = other.total() - one.total()
        if more > 0:
            found[name, day, REJECTED, max(other)] += more
        if more < 0:
            found[name, day, ACCEPTED, max(one)] -= more
            came.add((name, day, text.split(",")[0]))
        if more == 0 and one != other:
            found[name, day, OTHERWISE, ""] += other.total()
    for place in was_accepted.keys() & accepted.keys() - came:
        if was_accepted[place] != accepted[place]:
            found[place[0], place[1], CHANGED, ""] += 1
    return found


def marts(postgres):
    """Returns every row of the marts by its key, and every total over them."""
    rows, figures = {}, {}
    for table in MARTS:
        key, columns = columns_of(postgres, table)
        found = postgres.execute(f"select * from {table}").fetchall()
        rows |= {(table, *row[: len(key)]): tuple(row) for row in found}
        for place, name in enumerate(columns):
            values = [row[place] for row in found if row[place] is not None]
            if any(isinstance(value, str) or hasattr(value, "year") for value in values):
                continue
            mean = f"select round(avg({name}), 4) from {table}"
            figure = postgres.execute(mean).fetchone()[0] if re.fullmatch(MEANS, name) else sum(values)
            figures[table, name] = figure
    return rows, figures


def figures_in(lines):
    """Returns by (mart, column) the current and predicted figures in a backtest's lines, and the changed rows."""
    found, changed, mart = {}, {}, ""
    for line in lines:
        if match := re.fullmatch(r"  (\S+): ([\d,]+) rows change, ([\d,]+) come, ([\d,]+) go", line):
            mart = match[1]
            changed[mart] = tuple(int(number.replace(",", "")) for number in match.groups()[1:])
        elif match := re.fullmatch(r"    (\w+)(?: \(mean\))? +(\S+) +(\S+) +[+-]\S+", line):
            found[mart, match[1]] = tuple(float(number.replace(",", "")) for number in match.groups()[1:])
    return found, changed


def test_a_backtest_predicts_what_a_run_then_does(hospital, spark, postgres, monkeypatch):
    from jobs import backtest, dry_run, program, warehouse
    from jobs.bronze_to_silver import bronze_to_silver
    from jobs.gold_to_marts import gold_to_marts

    program.tune_for_small_input(spark, rows=0)
    first, last = hospital.day(1), hospital.day(31)
    bill = {"payment_status": "Pending", "payment_ts": ""}
    rows = {
        "patients": [hospital.row("patients", "P1"), hospital.row("patients", "P2", city="")],
        "visits": [hospital.row("visits", "V1"), hospital.row("visits", "V2", patient_id=hospital.key("P2"))],
        "admissions": [hospital.row("admissions", "A1"), hospital.row("admissions", "A2", room_type="?")],
        "billing": [
            hospital.row("billing", "B1"),
            hospital.row("billing", "B2", visit_id=hospital.key("V2")),
            hospital.row("billing", "B3", insurance_amount="490", patient_amount="-1"),
            hospital.row("billing", "B4", insurance_amount="10", patient_amount="-1"),
            hospital.row("billing", "B5", insurance_amount="490", total_amount="600"),  # of two the greater wins,
            hospital.row("billing", "B5", insurance_amount="590", total_amount="600"),  # until a rule rejects it
            hospital.row("billing", "B6", payment_status="partial"),
            hospital.row("billing", "B7", insurance_amount="490", **bill),
            hospital.row("billing", "B7", insurance_amount="490", **bill),
            hospital.row("billing", "B8", insurance_amount="10"),  # of two the paid one wins, until the ranks change
            hospital.row("billing", "B8", insurance_amount="10", payment_status="Pending"),
            hospital.row("billing", "", insurance_amount="490"),
        ],
    }
    for name in DATASETS:
        hospital.validate(name, 1, *rows[name])
    hospital.validate("billing", 2, hospital.row("billing", "B1", total_amount="700", insurance_amount="690"))
    for name in DATASETS:
        hospital.load(name, 1)
    hospital.load("billing", 2)
    gold_to_marts(first)
    silver, (mart_rows, figures) = verdicts(spark, hospital), marts(postgres)
    assert list(backtest.backtest(first, last)) == [
        "No declaration differs from what silver was validated by: nothing would change."
    ]

    patients, billing = CATALOG["patients"], CATALOG["billing"]
    city_required = tuple(replace(c, required=c.required or c.name == "city") for c in patients.columns)
    kept = [rule for rule in billing.rules if rule.reason not in ("negative_patient_amount", "insurance_exceeds_total")]
    share = Rule("insurance_exceeds_share", "insurance_amount <= 0.9 * total_amount", ("insurance_amount",))
    spelt = tuple(
        replace(c, one_of=("Paid", "Pending", "PARTIAL"), rank=("Pending", "Paid")) if c.one_of else c
        for c in billing.columns
    )
    monkeypatch.setitem(CATALOG, "patients", replace(patients, columns=city_required))
    monkeypatch.setitem(CATALOG, "billing", replace(billing, columns=spelt, rules=(*kept, share)))

    with warehouse.connect() as connection:
        runs = dry_run.standing_runs(connection)
        trials = dry_run.retry(spark, runs, backtest.due_days(runs, first, last))
        lines = list(backtest.report(connection, runs, trials))
    flips = sum((trial.flips for trial in trials.values()), Counter())
    print("\n".join(lines))  # shown if the test fails
    assert "patients: its declaration differs; 1 date revalidated, 2 rows" in lines
    assert "visits: its parents would come or go; 1 date revalidated, 2 rows" in lines
    assert "billing: its declaration differs; 2 dates revalidated, 13 rows" in lines
    assert f"-{hospital.year}" not in "".join(lines), "no key is shown"
    assert list(trials) == ["patients", "visits", "billing"], "no admission's parent comes or goes"
    assert verdicts(spark, hospital) == silver and marts(postgres) == (mart_rows, figures), "nothing is published"

    for name in ("patients", "billing"):
        bronze_to_silver(CATALOG[name], first)
    bronze_to_silver(CATALOG["billing"], hospital.day(2))
    while hospital.revalidate():
        pass
    for name in DATASETS:
        hospital.load(name, 1)
    hospital.load("billing", 2)
    gold_to_marts(first)

    real = flips_between(silver, verdicts(spark, hospital))
    assert +flips == real and len({direction for _, _, direction, _ in real}) == 4, "each direction occurs"
    found = postgres.execute(
        "select dataset, partition_date, accepted, rejected, faulty from ops.standing "
        "where partition_date between %s and %s",
        [first, last],
    ).fetchall()
    counted = {(name, day): numbers for name, day, *numbers in found}
    for name, trial in trials.items():
        for day, counts in trial.counts.items():
            assert counted[name, day] == [counts.accepted, counts.rows - counts.accepted, counts.faulty]

    rows_then, figures_then = marts(postgres)
    told, changed = figures_in(lines)
    in_marts = {place: numbers for place, numbers in told.items() if "." not in place[0]}
    differ = {place for place in figures if figures[place] != figures_then[place]}
    assert {place: (float(figures[place]), float(figures_then[place])) for place in differ} == in_marts
    for mart in MARTS:
        one, other = ({key: row for key, row in of.items() if key[0] == mart} for of in (mart_rows, rows_then))
        both = one.keys() & other.keys()
        differences = sum(one[key] != other[key] for key in both), len(other.keys() - both), len(one.keys() - both)
        assert changed.get(mart, (0, 0, 0)) == differences
    [withheld] = postgres.execute(
        "select sum(revenue_withheld), sum(bills_withheld), sum(visits_withheld) from ops.mart_trust "
        "where department = '*'"
    ).fetchall()
    names = "revenue_withheld", "bills_withheld", "visits_withheld"
    assert tuple(map(float, withheld)) == tuple(told["ops.mart_trust", name][1] for name in names)
    assert next(iter(backtest.backtest(first, last))).startswith("No declaration differs")


def test_a_backtest_by_hand(stack):
    done = call("-m", "jobs.backtest", "--first", "1999-01-01", "--last", "1999-12-31")
    assert (done.returncode, done.stdout) == (
        0,
        "No declaration differs from what silver was validated by: nothing would change.\n",
    )
    done = call("-m", "jobs.backtest", "--first", "yesterday")
    assert done.returncode == 2 and "is not a date" in done.stdout and os.linesep not in done.stdout.strip()


def test_a_thousand_dates_are_put_together(spark):
    from jobs.dry_run import union

    assert union([spark.range(1)] * 1001).columns == ["id"]
