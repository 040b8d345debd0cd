"""Checks which completion markers count, whatever clocks, dead runs and lost rows say."""

import pytest

from jobs.catalog import CATALOG


def made(hospital, name):
    """Tells whether the marker of a task of the first day counts for a Luigi process that starts now."""
    from pipelines import tasks

    tasks.session.cache_clear()
    tasks.session()
    return getattr(tasks, name)(dataset="patients", date=hospital.day(1)).made_in() is not None


@pytest.fixture
def brought(hospital):
    """Returns a function that loads a file of the first day up to a layer, with a new file each time."""
    from jobs.bronze_to_silver import bronze_to_silver

    def bring(layer, city):
        hospital.land("patients", 1, hospital.row("patients", "P1", city=city))
        hospital.bronze("patients", 1)
        if layer != "bronze":
            bronze_to_silver(CATALOG["patients"], hospital.day(1))
        if layer == "gold":
            hospital.load("patients", 1)

    return bring


@pytest.mark.parametrize("clock", ["ten years ahead", "ten years behind"])
def test_no_clock_makes_a_marker_look_newer_or_older_than_it_is(hospital, brought, clock):
    jump = {"ten years ahead": "+ interval '10 years'", "ten years behind": "- interval '10 years'"}[clock]
    brought("gold", "old")
    where = "where dataset = 'patients' and partition_date = %s"
    for table, columns in {"receipts": ("finished_at",), "ledger": ("started_at", "ended_at")}.items():
        jumped = ", ".join(f"{name} = {name} {jump}" for name in columns)
        hospital.postgres.execute(f"update ops.{table} set {jumped} {where}", [hospital.day(1)])
    assert all(made(hospital, name) for name in ("Bronze", "Silver", "Gold")), "what is current stays so"
    brought("bronze", "new")
    assert made(hospital, "Bronze") and not made(hospital, "Silver"), "a new file is due"
    brought("silver", "new")
    assert made(hospital, "Silver") and not made(hospital, "Gold")
    brought("gold", "new")
    assert made(hospital, "Gold")


def test_a_run_that_died_is_known_to_be_the_last_whatever_the_clocks_say(hospital):
    """Records a dead run that removed a key and began before the current run, whose clock was ahead."""
    from jobs import ledger

    day = hospital.day(1)
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    row = {"layer": "silver", "dataset": "patients", "partition_date": day}
    ledger.write(hospital.postgres, "ops.ledger", row | {"run_id": "died", "lost": 1})
    hospital.postgres.execute("update ops.ledger set started_at = '1999-01-01' where run_id = 'died'")
    assert ledger.died_before(hospital.postgres, row | {"run_id": "next"})
    hospital.validate("patients", 1)
    hospital.postgres.execute("update ops.ledger set started_at = '2999-01-01' where run_id = 'died'")
    assert not ledger.died_before(hospital.postgres, row | {"run_id": "next"})


def test_markers_are_read_though_the_server_has_ended_the_connection(hospital):
    from jobs import ledger, warehouse

    before = warehouse.process_connection()
    assert warehouse.process_connection() is before
    hospital.postgres.execute("select pg_terminate_backend(%s)", [before.info.backend_pid])
    assert ledger.turn() and warehouse.process_connection() is not before


@pytest.mark.parametrize("fault", ["lost", "run_id = 'x'", "made_from = 'x'", "made_from = ''"])
@pytest.mark.parametrize("layer", ["bronze", "silver", "gold"])
def test_a_marker_that_is_lost_or_says_something_else_counts_for_nothing(hospital, brought, layer, fault):
    brought("gold", "one")
    assert made(hospital, layer.title())
    where = "where layer = %s and dataset = 'patients' and partition_date = %s"
    change = "delete from ops.receipts" if fault == "lost" else f"update ops.receipts set {fault}"
    hospital.postgres.execute(f"{change} {where}", [layer, hospital.day(1)])
    assert not made(hospital, layer.title())
    brought(layer, "one")
    assert made(hospital, layer.title())
