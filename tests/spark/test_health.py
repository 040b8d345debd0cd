"""Checks the problems listed by `make health`; tests/flow/test_flow.py covers failed dates."""

import os
import subprocess
import sys
from datetime import date

from jobs import settings
from pipelines import health


def told(**environment):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "health"],
        cwd=settings.ROOT,
        env=os.environ | environment,
        text=True,
        capture_output=True,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_service_that_is_down_is_named_once(stack):
    for setting, name in {"POSTGRES_PORT": "postgres", "LUIGI_PORT": "luigid", "DASHBOARDS_PORT": "dashboards"}.items():
        code, lines = told(**{setting: "9"})
        assert code == 1 and len([line for line in lines if line.startswith(f"{name} is down (it lacks ")]) == 1, lines
        assert not [line for line in lines if "does not answer" in line]


def test_a_disk_that_is_nearly_full_is_named_once(stack, monkeypatch):
    assert list(health.full_disks()) == []
    monkeypatch.setattr(health, "NEARLY_FULL", 0)
    [line] = health.full_disks()
    assert line.startswith("the disk of STACK_DIR is nearly full")


def test_a_date_that_is_running_is_no_problem(hospital):
    from jobs import warehouse

    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    day = hospital.day(1)
    mine = [line for line in health.dates(hospital.postgres) if line.startswith(str(day))]
    assert mine and "is incomplete" in mine[0]
    with warehouse.connect() as connection, warehouse.writer(connection, f"the date {day}"):
        assert not [line for line in health.dates(hospital.postgres) if line.startswith(str(day))]


def test_a_change_by_hand_is_told(empty_warehouse):
    with empty_warehouse.transaction(force_rollback=True):
        empty_warehouse.execute(
            "insert into patients (patient_id, gender, birth_date, registration_date, _partition_date, _run_id) "
            "values ('P1', 'F', '1980-01-01', '2026-01-01', %s, 'hand')",
            [date(2026, 1, 1)],
        )
        [line] = health.changes_by_hand(empty_warehouse)
    assert "gold patients has +1 rows outside any load" in line
