"""Checks which rejected rows breach a threshold, what a breach stops, and who lets it pass."""

from collections import Counter
from datetime import date
from decimal import Decimal

import pytest
from psycopg.rows import dict_row

from jobs.catalog import CATALOG
from jobs.program import Refused


def test_too_many_rejects_stop_a_date_before_gold_until_somebody_lets_it_pass(hospital):
    from jobs import thresholds
    from pipelines.task_log import Failed
    from pipelines.tasks import QualityGate

    rows = [hospital.row("patients", f"P{n}", gender="?" if n > 90 else "F") for n in range(1, 151)]
    level = r"60 of 150 rows rejected \(40.0 %\), the stop level is 33 % and 50 rows"
    assert "stop: patients" in hospital.validate("patients", 1, *rows)
    hospital.validate("visits", 1, hospital.row("visits", "V1"))
    hospital.validate("visits", 2, hospital.row("visits", "V2"))
    for dataset in ("patients", "visits"):
        with pytest.raises(Refused, match=level):
            hospital.load(dataset, 1)
    with pytest.raises(Refused, match=f"needs patients of {hospital.day(1)}, which a stop level keeps out"):
        hospital.load("visits", 2)
    assert hospital.gold("patients") == hospital.gold("visits") == []
    with pytest.raises(Failed, match=f"{level}.*OVERRIDE=1"):
        QualityGate(date=hospital.day(1)).run()
    [(outcome, error)] = hospital.ledger("gold", "all", "outcome", "error")
    assert outcome == "stopped" and "60 of 150 rows rejected (40.0 %)" in error
    states = "select state, why from ops.dates where partition_date = %s"
    state, why = hospital.postgres.execute(states, [hospital.day(1)]).fetchone()
    assert state == "stopped" and "patients is stopped before gold by rejected, unknown_gender" in why

    QualityGate(date=hospital.day(1), override=True).run()
    [(said,)] = hospital.ledger("override", "patients", "overridden")
    assert "60 of 150 rows rejected (40.0 %)" in said and "unknown_gender" in said
    hospital.load("patients", 1)
    hospital.load("visits", 2)
    assert (len(hospital.gold("patients")), len(hospital.gold("visits"))) == (90, 1)

    rows[0]["city"] = "Elsewhere"  # another file needs another decision
    hospital.validate("patients", 1, *rows)
    with pytest.raises(Refused, match=level):
        hospital.load("patients", 1)
    hospital.validate("patients", 1, *rows[:100])
    assert thresholds.stops(hospital.postgres, hospital.day(1)) == []
    hospital.load("patients", 1)


def test_a_small_file_that_is_nearly_all_faulty_stops_its_date_too(hospital):
    from pipelines.task_log import Failed
    from pipelines.tasks import QualityGate

    def validate(number, faulty, sound=0):
        rows = [hospital.row("patients", f"P{n}", birth_date="01/02/1980") for n in range(faulty)]
        rows += [hospital.row("patients", f"P{n}") for n in range(faulty, faulty + sound)]
        return hospital.validate("patients", number, *rows)

    said = validate(1, 45)
    level = "the stop level is 90 % and 5 rows"
    assert f"stop: patients {hospital.day(1)}: 45 of 45 rows rejected (100.0 %), {level}" in said
    assert f"45 of 45 rows rejected with unreadable_birth_date (100.0 %), {level}" in said and said.count("stop:") == 2
    with pytest.raises(Refused, match=f"45 of 45 rows rejected .100.0 %., {level}"):
        hospital.load("patients", 1)
    with pytest.raises(Failed, match=f"{level}.*OVERRIDE=1"):
        QualityGate(date=hospital.day(1)).run()
    QualityGate(date=hospital.day(1), override=True).run()
    hospital.load("patients", 1)
    assert validate(2, 9, sound=1).count(level) == 2 and level in validate(2, 5)
    assert "stop:" not in validate(2, 4) + validate(2, 8, sound=1)
    said = validate(3, 60)  # breaches both thresholds
    assert said.count("the stop level is 33 % and 50 rows") == 2 and said.count("stop:") == 2


def test_of_dates_that_pass_the_gate_together_only_those_with_too_many_rejects_are_stopped(hospital):
    from pipelines.task_log import Failed
    from pipelines.tasks import QualityGate

    for number, sound in ((1, "1980-02-29"), (2, "never"), (3, "1980-02-29"), (4, "never")):
        rows = (hospital.row("patients", f"P{number}{n}", birth_date=sound) for n in range(9))
        hospital.validate("patients", number, *rows)
    days = [hospital.day(number) for number in (1, 2, 3, 4)]
    with pytest.raises(Failed) as stopped:
        QualityGate(date=tuple(days)).run()
    assert [str(day) in str(stopped.value) for day in days] == [False, True, False, True]
    found = "select partition_date, outcome from ops.ledger where layer = 'gold' and partition_date = any(%s)"
    told = hospital.postgres.execute(found, [days]).fetchall()
    assert dict(told) == {days[1]: "stopped", days[3]: "stopped"}
    QualityGate(date=tuple(days), override=True).run()
    QualityGate(date=tuple(days)).run()


def test_a_small_file_of_orphans_alone_stops_nothing(hospital):
    said = hospital.validate("visits", 1, *(hospital.row("visits", f"V{n}") for n in range(10)))
    assert "stop:" not in said
    rows = [hospital.row("visits", f"V{n}", status="?" if n < 8 else "Completed") for n in range(10)]
    assert "stop:" not in hospital.validate("visits", 1, *rows), "eight are faulty, two only wait"


def test_orphans_stop_nothing(hospital):
    said = hospital.validate("visits", 1, *(hospital.row("visits", f"V{n}") for n in range(60)))
    assert "warn: visits" in said and "stop:" not in said
    assert "0 inserted" in hospital.load("visits", 1)


def levels_by_hand(hits, rows):
    """Returns by action the share of the smallest threshold that a file with these rejected rows breaches."""
    warns = [0.05] * (hits >= 20 and hits * 20 >= rows)
    stops = [1 / 3] * (hits >= 50 and hits * 3 >= rows) + [0.9] * (hits >= 5 and hits * 10 >= rows * 9)
    return {action: shares[0] for action, shares in {"warn": warns, "stop": stops}.items() if shares}


def test_levels_are_reached_alike_in_the_warehouse_and_in_a_backtest(empty_warehouse):
    from jobs import dry_run, ledger, validation, verdict_diff

    patients, first = CATALOG["patients"], date(2026, 1, 1)
    sizes = [*range(0, 13), *range(44, 62), 99, 100, 101, 149, 150, 151, 400, 30_000, 30_001]
    files = [
        (rows, hits)
        for rows in sizes
        for hits in sorted({min(max(hits, 0), rows) for part in (0, 0.05, 1 / 3, 0.9, 1) for hits in
                            (int(part * rows) - 1, int(part * rows), int(part * rows) + 1, 5, 50)})
    ]  # fmt: skip
    days = {date.fromordinal(first.toordinal() + n): file for n, file in enumerate(files)}
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.cursor().executemany(
            "insert into ops.ledger (run_id, layer, dataset, partition_date, bronze_rows, faulty) "
            "values ('R', 'silver', 'patients', %s, %s, %s)",
            [(day, *file) for day, file in days.items()],
        )
        with empty_warehouse.cursor(row_factory=dict_row) as cursor:
            tripped = cursor.execute("select * from ops.tripped order by partition_date, action").fetchall()
        found = {day: {} for day in days}
        for level in tripped:
            assert level["action"] not in found[level["partition_date"]], "one level is told"
            found[level["partition_date"]][level["action"]] = float(level["level_share"])
        assert found == {day: levels_by_hand(hits, rows) for day, (rows, hits) in days.items()}

        none = dict.fromkeys(patients.reasons, 0)
        counts = {
            day: validation.Counts(rows, rows - hits, hits, 0, Decimal(), Decimal(), none, 0)
            for day, (rows, hits) in days.items()
        }
        trial = dry_run.Retrial(patients, counts, None, None, None, set(), Counter())
        runs = {"patients": {day: {"bronze_sha256": "file"} for day in days}}
        _, *lines = verdict_diff.stop_lines(empty_warehouse, {"patients": trial}, runs)
        assert lines == [f"  {ledger.in_words(level)}" for level in tripped if level["action"] == "stop"]
    assert len(lines) > 50


def test_every_reason_has_its_levels_in_the_warehouse(postgres):
    found = postgres.execute("select dataset, reason, retryable, stop_share from ops.rules").fetchall()
    rules = {(dataset, reason): (retryable, share) for dataset, reason, retryable, share in found}
    assert set(rules) == {(n, code) for n, d in CATALOG.items() for code in ("rejected", *d.reasons)}
    assert {reason for (_, reason), (retryable, _) in rules.items() if retryable} == {
        "orphan_patient_id",
        "orphan_visit_id",
    }
    assert all((share is None) == retryable for retryable, share in rules.values())
