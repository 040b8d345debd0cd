"""Checks that validating only the concerned records of a corrected file gives the verdicts over the whole file."""

import random
from collections import Counter

from jobs.catalog import CATALOG
from tests.spark.test_validation import DAY, MALFORMED, keys, records
from tests.support.examples import VALID, record

VISITS = CATALOG["visits"]


def visit(**changes):
    return record("visits", VALID["visits"] | {"patient_id": "P1"} | changes)


# Records that share keys, and some whose texts occur more than once.
KEYS = [f"V{number}" for number in range(12)]
TEXTS = [
    *(visit(visit_id=key, doctor_id=doctor) for key in KEYS for doctor in ("D1", "D2", "", " D1")),
    *(visit(visit_id=key, status=status) for key in KEYS for status in ("?", "Completed", "")),
    *(visit(visit_id=key, patient_id="P9") for key in (*KEYS, "")),
    *(visit(visit_id="", doctor_id=doctor) for doctor in ("D1", "D2")),
    *(visit(visit_id=f" {key} ", department="Cardiology, West") for key in KEYS),
    *MALFORMED.values(),
]


def corrections():
    """Yields pairs of a file and a corrected one: drawn from TEXTS, and by hand."""
    chance = random.Random(7)
    before = chance.choices(TEXTS, k=80)
    after = [text for text in before if chance.random() < 0.8] + chance.choices(TEXTS, k=15)
    yield before, chance.sample(after, len(after))
    yield [visit()] * 2 + ["a", "b"], [visit()]


def rows_of(frame, hashes=()):
    """Returns the rows of a silver table but those of records with some hashes."""
    names = sorted(set(frame.columns) - {"_partition_date"})
    return Counter(str(row) for row in frame.select(*names).collect() if row["_record_hash"] not in hashes)


def values(frame, name):
    return {row[name] for row in frame.select(name).collect()}


def test_a_correction_by_record_gives_the_verdicts_over_the_whole_file(spark, monkeypatch):
    from jobs import concerned, silver_by_key, validation

    monkeypatch.setattr(concerned, "MOST", 100)
    headers, parents = {DAY: VISITS.names}, {"patient_id": keys(spark, "patient_id", "P1")}

    def whole(texts):
        validated = validation.validate(records(spark, texts), VISITS, headers, parents).localCheckpoint()
        return validation.split(validated, VISITS, headers), validation.count(validated, VISITS, [DAY])[DAY]

    for before, after in corrections():
        (old, old_counts), (new, new_counts) = whole(before), whole(after)
        partition = silver_by_key.Partition(*old, records(spark, after), parents)
        changes = silver_by_key.Changes(len(after), is_corrected=True, is_due=False, may_have_lost=False)
        found = silver_by_key.find_difference(partition, VISITS, DAY, VISITS.names, changes)
        for kind in ("accepted", "rejected"):
            leave = values(getattr(found.rows, kind), "_record_hash")
            now = rows_of(getattr(old, kind), leave) + rows_of(getattr(found.verdict, kind))
            assert now == rows_of(getattr(new, kind)), (before, after)
        for name in ("rows", "accepted", "faulty", "amounts", "differing"):
            moved = getattr(found.now, name) - getattr(found.before, name)
            assert getattr(old_counts, name) + moved == getattr(new_counts, name), (name, before, after)
        # What gold deletes: keys that no record has any more, and those of rows that are rejected now.
        gone, accepted = values(found.gone, "visit_id"), values(new.accepted, "visit_id")
        assert not gone & accepted
        rejected = values(concerned.with_types(found.verdict.rejected, VISITS), "visit_id")
        assert values(old.accepted, "visit_id") - accepted <= gone | rejected, (before, after)
