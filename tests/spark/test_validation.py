"""Checks every rule by example, validated in one Spark job per dataset."""

from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import reduce

import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame

from jobs import landing
from jobs.catalog import CATALOG
from jobs.dataset import Column
from tests.support.examples import DAY, EXAMPLES, PARENTS, VALID, keys, record, records, versions

MALFORMED = {
    "too few fields": "P1,F",
    "too many fields": "P1,F,1980-02-29,Springfield,2024-03-01,more",
    "one empty quoted field": '""',
    "a quote left open": 'P1,F,1980-02-29,"Springfield,2024-03-01\nP2,F',
    "a quote left open in the last field": 'P1,F,1980-02-29,Springfield,"2024-03-01',
    "a quote left open after a doubled one": 'P1,F,1980-02-29,Springfield,"""2024-03-01""',
    "a NUL": "P1,F,1980-02-29,Spring\0field,2024-03-01",
    "a NUL at the start": "\0P1,F,1980-02-29,Springfield,2024-03-01",
}


@pytest.fixture(scope="module")
def validate(spark):
    from jobs.validation import Verdict, split, validate

    def validate_records(name, texts, header=None):
        """Returns the verdict over records given as text, against the parents P1 and V1."""
        dataset = CATALOG[name]
        parents = {
            column: keys(spark, CATALOG[parent].key, PARENTS[parent]) for column, parent in dataset.parents.items()
        }
        headers = {DAY: header or dataset.names}
        validated = validate(records(spark, texts), dataset, headers, parents)
        return Verdict(*(rows.drop("_partition_date", "_record_hash") for rows in split(validated, dataset, headers)))

    return validate_records


@pytest.fixture(scope="module")
def verdicts(validate):
    """Returns the rejection reasons of each example, in order."""
    found = {}
    for name in CATALOG:
        # A key of its own keeps each example from being a duplicate, unless its key is what is blank.
        numbered = [(n, {**VALID[name], **change}) for n, (d, change, _) in enumerate(EXAMPLES) if d == name]
        key = CATALOG[name].key
        rows = {n: record(name, row | ({key: f"X{n}"} if row[key] else {})) for n, row in numbered}
        verdict = validate(name, rows.values())
        rejected = {row["_raw"]: row["_reject_reasons"] for row in verdict.rejected.collect()}
        accepted = {row[key] for row in verdict.accepted.select(key).collect()}
        for n, text in rows.items():
            found[n] = tuple(reason["code"] for reason in rejected.get(text, ()))
            assert (text in rejected) != (f"X{n}" in accepted), "a row stands in exactly one of the two"
    return found


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[f"{d}-{c}" for d, c, _ in EXAMPLES])
def test_an_example_gets_its_reasons_and_no_others(verdicts, number):
    assert verdicts[number] == EXAMPLES[number][2]


def test_every_reason_has_an_example():
    given = {(name, reason) for name, _, reasons in EXAMPLES for reason in reasons}
    declared = {(name, reason) for name, dataset in CATALOG.items() for reason in dataset.reasons}
    elsewhere = {(n, r) for n, d in CATALOG.items() for r in ("malformed_row", f"duplicate_{d.key}")}
    assert given == declared - elsewhere


def test_values_are_read_as_their_types(validate):
    dated = record("patients", VALID["patients"] | {"gender": " f ", "city": "  "})
    [patient] = validate("patients", [dated]).accepted.collect()
    assert patient.asDict() == {
        "patient_id": "P1",
        "gender": "F",
        "birth_date": date(1980, 2, 29),
        "city": None,
        "registration_date": date(2024, 3, 1),
    }
    costs = {"T1": "1.005", "T2": "1.00499999999999999999999999", "T3": "+7", "T4": "0.335"}
    costs |= {"T5": ".5", "T6": "+.25", "T7": ".005", "T8": ".00499", "T9": "-.004", "T10": ".999"}
    rows = [
        record("treatments", VALID["treatments"] | {"treatment_id": k, "treatment_cost": v}) for k, v in costs.items()
    ]
    read = {row.treatment_id: row.treatment_cost for row in validate("treatments", rows).accepted.collect()}
    cents = {"T1": 101, "T2": 100, "T3": 700, "T4": 34, "T5": 50, "T6": 25, "T7": 1, "T8": 0, "T9": 0, "T10": 100}
    assert {key: int(cost * 100) for key, cost in read.items()} == cents
    assert {key: landing.cents(text) for key, text in costs.items()} == cents, "a plain reading has the same"
    assert [landing.cents(text) for text in ("-.005", "-.5", "5.", ".", "-.", "")] == [-1, -50, None, None, None, None]
    starts = {"V1": "2026-01-05T09:00+05:30", "V2": "2026-01-05 09:00:30.5", "V3": "2026-01-05T09:00Z"}
    rows = [record("visits", VALID["visits"] | {"visit_id": k, "visit_start_ts": v}) for k, v in starts.items()]
    frame = validate("visits", rows).accepted.selectExpr("visit_id", "cast(visit_start_ts as string) as start")
    assert {row.visit_id: row.start for row in frame.collect()} == {
        "V1": "2026-01-05 03:30:00",
        "V2": "2026-01-05 09:00:30.5",
        "V3": "2026-01-05 09:00:00",
    }


def test_a_malformed_record_stands_alone_with_its_text(validate):
    verdict = validate("patients", MALFORMED.values())
    rejected = {row["_raw"]: row["_reject_reason"] for row in verdict.rejected.collect()}
    assert rejected == dict.fromkeys(MALFORMED.values(), "malformed_row")
    assert verdict.accepted.count() == 0


def test_of_rows_with_one_key_the_same_stands_in_any_order(validate, spark):
    stay = VALID["admissions"]
    still_in, discharged = record("admissions", stay | {"discharge_ts": ""}), record("admissions", stay)
    broken = record("admissions", stay | {"room_type": "Suite", "discharge_ts": "2026-02-01T00:00"})
    orders = [still_in, discharged, broken, discharged], [discharged, broken, discharged, still_in]
    one, other = (validate("admissions", order) for order in orders)
    assert_df_equality(one.accepted, other.accepted)
    assert_df_equality(one.rejected, other.rejected, ignore_row_order=True)
    assert [row.discharge_ts for row in one.accepted.collect()] == [datetime(2026, 1, 8, 9)]
    reasons = sorted((row["_raw"], row["_reject_reason"]) for row in one.rejected.collect())
    assert reasons == sorted(
        [(broken, "unknown_room_type"), (discharged, "duplicate_admission_id"), (still_in, "duplicate_admission_id")]
    )


@pytest.mark.parametrize("name", CATALOG)
def test_the_version_stands_that_says_most_then_is_furthest_along_latest_greatest(validate, name):
    cases = list(versions(name))
    verdict = validate(name, [record(name, row) for _, rows in cases for row in rows])
    stand = validate(name, [record(name, row) for row, _ in cases]).accepted
    assert_df_equality(verdict.accepted, stand, ignore_row_order=True)
    rejected = Counter((row["_raw"], row["_reject_reason"]) for row in verdict.rejected.collect())
    all_rows = Counter(record(name, row) for _, rows in cases for row in rows)
    others = all_rows - Counter(record(name, row) for row, _ in cases)
    assert rejected == Counter({(text, f"duplicate_{CATALOG[name].key}"): times for text, times in others.items()})


def test_keys_are_counted_whose_versions_differ_in_more_than_their_text(spark):
    from jobs.validation import count, validate

    bill, unpaid = VALID["billing"], {"payment_status": "Pending", "payment_ts": ""}
    changes = {
        "two versions": [{}, unpaid],
        "three": [{}, unpaid, unpaid | {"total_amount": "501"}],
        "three of which two are alike": [{}, unpaid, {}],
        "a value more": [unpaid, unpaid | {"patient_amount": ""}],
        "the same again": [{}, {}],
        "written otherwise": [{}, {"payment_status": " pAID", "total_amount": "+500.004"}, {}],
        "the other is unsound": [{}, {"total_amount": "-1", "insurance_amount": ""}],
        "the other is an orphan": [{}, {"visit_id": "V404"}],
        "all others are unsound": [{"payment_ts": ""}, {"payment_status": "?"}],
        "once": [unpaid],
    }
    rows = [record("billing", bill | {"bill_id": key} | change) for key, some in changes.items() for change in some]
    rows += [record("billing", bill | {"bill_id": " "}), record("billing", bill | {"bill_id": "", "total_amount": "1"})]
    dataset, parents = CATALOG["billing"], {"visit_id": keys(spark, "visit_id", "V1")}
    for texts in (rows, rows[::-1]):
        validated = validate(records(spark, texts), dataset, {DAY: dataset.names}, parents)
        [counts] = count(validated, dataset, [DAY]).values()
        assert (counts.rows, counts.accepted, counts.differing) == (len(rows), 9, 4)
        assert counts.hits["duplicate_bill_id"] == 9


def test_versions_of_one_day_as_an_extract_may_bring_them(validate):
    """Covers an extract taken while bills were booked: the later state of each row wins."""
    bill = VALID["billing"] | {"insurance_amount": "200.00", "patient_amount": "50.00", "total_amount": "250.00"}
    rows = [
        bill | {"bill_id": "B1", "payment_status": "Pending", "payment_ts": ""},
        bill | {"bill_id": "B1"},
        bill | {"bill_id": "B2", "total_amount": "300", "payment_status": "Pending", "payment_ts": ""},
        bill | {"bill_id": "B2", "total_amount": "280"},
        bill | {"bill_id": "B3"},
        bill | {"bill_id": "B4", "total_amount": "350"},
        bill | {"bill_id": "B5", "total_amount": "70", "insurance_amount": "", "payment_status": "Pending"},
    ]
    bills = validate("billing", [record("billing", row) for row in rows]).accepted.collect()
    paid = [row for row in bills if row.payment_status == "Paid"]
    assert (len(paid), len(bills), sum(row.total_amount for row in bills)) == (4, 5, Decimal("1200.00"))


def test_a_rank_names_only_listed_values():
    for declared in ({"rank": ("Paid", "Waived")}, {"not_known": "Waived"}, {"one_of": (), "rank": ("Paid",)}):
        with pytest.raises(ValueError, match=r"payment_status ranks (Waived|Paid); add"):
            Column("payment_status", **{"one_of": ("Paid", "Pending")} | declared)
    status = Column("status", one_of=("A", "B", "C", "D"), rank=("C", "A"), not_known="D")
    assert status.ranks == {"C": 0, "A": 1, "B": 2, "D": 3}
    assert Column("status", one_of=("A", "B")).ranks == {}


@pytest.mark.parametrize("change", [{"rank": ("Pending", "Paid", "Partial")}, {"not_known": "Pending"}])
def test_another_rank_makes_what_was_validated_due(change):
    billing = CATALOG["billing"]
    columns = tuple(replace(c, **change) if c.name == "payment_status" else c for c in billing.columns)
    assert replace(billing, columns=columns).rule_set != billing.rule_set


def test_a_rejected_row_keeps_its_text_untrimmed_and_every_reason(validate):
    text = record("billing", VALID["billing"] | {"bill_id": " B1 ", "total_amount": " -1", "patient_amount": ""})
    [row] = validate("billing", [text]).rejected.collect()
    assert (row.bill_id, row.total_amount, row.patient_amount, row["_raw"]) == (" B1 ", " -1", None, text)
    assert row["_reject_reason"] == "negative_total_amount;insurance_exceeds_total"
    assert [(r.code, r.column) for r in row["_reject_reasons"]] == [
        ("negative_total_amount", "total_amount"),
        ("insurance_exceeds_total", None),
    ]
    assert all(r.message for r in row["_reject_reasons"])


def test_columns_are_found_by_name_and_others_stay_behind(validate):
    header = ["note", *reversed(CATALOG["patients"].names)]
    verdict = validate("patients", ["hello,2024-03-01,Springfield,1980-02-29,F,P1", "x,,,,,P2"], header)
    assert [row.patient_id for row in verdict.accepted.collect()] == ["P1"]
    assert [(row.patient_id, row["_raw"]) for row in verdict.rejected.collect()] == [("P2", "x,,,,,P2")]


def test_columns_without_a_name_stay_behind_wherever_they_stand(validate):
    header = ["", "", *CATALOG["patients"].names[:2], "", *CATALOG["patients"].names[2:], "", ""]
    sound, broken = "x,y,P1,F,,1980-02-29,Springfield,2024-03-01,,", ",,P2,F,=1,?,Springfield,2024-03-01,,"
    verdict = validate("patients", [sound, broken, "P3,F,1980-02-29,Springfield,2024-03-01"], header)
    assert [tuple(row)[:2] for row in verdict.accepted.collect()] == [("P1", "F")]
    rejected = {row["_raw"]: (row.patient_id, row["_reject_reason"]) for row in verdict.rejected.collect()}
    assert rejected[broken] == ("P2", "unreadable_birth_date")
    assert {reason for _, reason in rejected.values()} == {"unreadable_birth_date", "malformed_row"}


def test_a_parent_given_twice_multiplies_no_row(spark):
    from jobs.validation import count, validate

    twice = keys(spark, "patient_id", "P1", "P1").unionAll(keys(spark, "patient_id", "P1", day=date(2025, 1, 1)))
    frame, dataset = records(spark, [record("visits", VALID["visits"])]), CATALOG["visits"]
    validated = validate(frame, dataset, {DAY: dataset.names}, {"patient_id": twice})
    [counts] = count(validated, dataset, [DAY]).values()
    assert (counts.rows, counts.accepted) == (1, 1)


def test_partitions_in_one_plan_get_the_verdicts_that_each_gets_by_itself(spark):
    """Gives partitions overlapping keys, and each its own header and its own last date up to which parents count."""
    from jobs.validation import count, split, validate

    dataset, key = CATALOG["visits"], CATALOG["patients"].key
    days = [DAY, DAY + timedelta(1), DAY + timedelta(dataset.orphan_days), DAY + timedelta(dataset.orphan_days + 1)]
    visits = {n: record("visits", VALID["visits"] | {"visit_id": f"V{n}"}) for n in range(3)}
    headers = dict.fromkeys(days, dataset.names) | {days[1]: ("note", *reversed(dataset.names))}
    late = record("visits", VALID["visits"] | {"visit_id": "V9", "patient_id": "late"})
    files = {
        days[0]: [visits[0], visits[1], late, "malformed"],
        days[1]: [",".join(["of another order", *reversed(text.split(","))]) for text in (visits[1], visits[1], late)],
        days[2]: [],
        days[3]: [visits[2], late],
    }
    parents = {"patient_id": keys(spark, key, "P1").unionAll(keys(spark, key, "late", day=days[3]))}

    def verdicts(*of):
        frame = reduce(DataFrame.unionAll, (records(spark, files[day], day) for day in of))
        its = {day: headers[day] for day in of}
        validated = validate(frame, dataset, its, parents).localCheckpoint()
        rows = [(kind, *row) for kind, part in enumerate(split(validated, dataset, its)) for row in part.collect()]
        return Counter(map(str, rows)), count(validated, dataset, of)

    rows, counts = verdicts(*days)
    alone = [verdicts(day) for day in days]
    assert rows == sum((each for each, _ in alone), Counter())
    assert counts == {day: each for _, by_day in alone for day, each in by_day.items()}
    assert [each.accepted for each in counts.values()] == [2, 2, 0, 2]
    assert counts[days[0]].hits["orphan_patient_id"] == 1, "its parent came a day too late"


def test_a_checksum_tells_rows_apart_but_not_their_order(spark):
    from jobs.validation import checksum

    one = [("a", None), ("b", "c")]
    others = {
        "order": [("b", "c"), ("a", None)],
        "twice": [*one, ("b", "c")],
        "a row less": [("b", "c")],
        "a null elsewhere": [(None, "a"), ("b", "c")],
        "another value": [("a", None), ("b", "d")],
        "pairs that leave the same exclusive or": [("a", None)] * 2,
    }
    frames = spark.createDataFrame(
        [(name, *row) for name, rows in {"one": one, **others}.items() for row in rows],
        "name string, x string, y string",
    )
    sums = dict(frames.groupBy("name").agg(checksum(["x", "y"], "salt").alias("sum")).collect())
    assert {name for name, found in sums.items() if found == sums["one"]} == {"one", "order"}
    assert frames.filter("name = 'one'").agg(checksum(["x", "y"], "pepper")).collect() != [(sums["one"],)]


def test_a_union_of_many_files_can_be_sent_to_spark(spark):
    """Fails for a chain of unions, which is nested as deep as it has members."""
    from jobs.validation import union

    frames = [spark.range(number, number + 1) for number in range(150)]
    assert sorted(row.id for row in union(frames).collect()) == [*range(150)]
