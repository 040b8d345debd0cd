"""Tests that Prometheus can read the ledger's figures from the metrics, and that promtool accepts the alerts."""

import re
import shutil
import subprocess
import time
from datetime import date, datetime, timezone

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jobs import ledger, settings
from jobs.catalog import CATALOG
from pipelines import metrics, tasks
from tests.sql.test_lineage import DAY, empty_ledger, settle, whole_date  # noqa: F401

ALERTS = settings.ROOT / "conf" / "prometheus" / "alerts.yml"


def read(whole):
    """Returns each sample by its name and labels."""
    families = text_string_to_metric_families(whole.decode())
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_the_metrics_are_the_ledgers(empty_ledger):  # noqa: F811
    before = time.time()
    whole_date(empty_ledger)
    settle(empty_ledger, "gold", "visits", inserted=3, updated=1)
    empty_ledger.execute("insert into ops.datasets select 'lab', 'lab_id', null, 1, 6, '2026-01-01', false")
    try:
        found = read(metrics.text())
    finally:
        empty_ledger.execute("delete from ops.datasets where dataset = 'lab'")
    assert found["healthcare_run_rows", "silver", "visits"] == 10
    assert found["healthcare_run_rejected_rows", "silver", "visits"] == 2
    assert found["healthcare_run_rows", "gold", "visits"] == 4, "of the newest run"
    assert found["healthcare_rejected_rows", "missing_visit_id", "visits"] == 2
    assert found["healthcare_rejected_rows", "orphan_patient_id", "visits"] == 0
    for layer in ("bronze", "silver", "gold"):
        for dataset in CATALOG:
            one, other = sorted((layer, dataset))
            assert before <= found["healthcare_run_last_success_timestamp_seconds", one, other] <= time.time()
            assert 0 <= found["healthcare_run_duration_seconds", one, other] < 60
    newest = datetime(DAY.year, DAY.month, DAY.day, tzinfo=timezone.utc).timestamp()
    assert found["healthcare_newest_date_timestamp_seconds", "visits"] == newest
    due = newest + 2 * 86_400 + CATALOG["visits"].due_hours * 3_600
    assert found["healthcare_next_file_due_timestamp_seconds", "visits"] == due
    assert ("healthcare_next_file_due_timestamp_seconds", "lab") not in found, "nothing of it came yet"
    assert sum(value for (name, *_), value in found.items() if name == "healthcare_dates") == 1


def test_a_failed_run_has_a_time_and_leaves_the_last_success(empty_ledger):  # noqa: F811
    settle(empty_ledger, "bronze", "visits")
    with pytest.raises(ValueError), ledger.run(empty_ledger, "bronze", "visits", date(2026, 1, 6), "rules"):
        raise ValueError("QZAN01")
    whole = metrics.text()
    found = read(whole)
    failed, done = (f"healthcare_run_last_{word}_timestamp_seconds" for word in ("failure", "success"))
    assert found[failed, "bronze", "visits"] >= found[done, "bronze", "visits"]
    assert b"QZAN" not in whole


def test_both_files_are_written_whole_and_can_be_read_by_others(empty_ledger, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("METRICS_DIR", str(tmp_path / "collector"))
    metrics.renew(tasks.Day(date=DAY))
    files = [tmp_path / "collector" / "healthcare.prom", tmp_path / "dashboards" / "metrics.txt"]
    assert files == metrics.places()
    for file in files:
        assert read(file.read_bytes()) and file.stat().st_mode & 0o777 == 0o644
        assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_run_goes_on_where_the_metrics_cannot_be_written(empty_ledger, monkeypatch, caplog):  # noqa: F811
    caplog.set_level("WARNING", "luigi-interface")  # Luigi may have been told to say less
    monkeypatch.setattr(metrics, "text", lambda: (_ for _ in ()).throw(ValueError("QZAN01")))
    metrics.renew(tasks.Day(date=DAY))
    assert "are not renewed after Day (ValueError)" in caplog.text and "QZAN" not in caplog.text


A_YEAR = """
insert into ops.ledger (
    run_id, layer, dataset, partition_date, ended_at, outcome, bronze_rows, bronze_sha256, accepted, rejected, faulty,
    inserted, updated, unchanged, removed
)
select
    format('%s %s %s', layer, dataset, day), layer, dataset, date '2025-01-01' + day, now(), 'done', 100, 'sha', 98, 2,
    2, 98, 0, 0, 0
from generate_series(0, 364) as day
cross join unnest(array['bronze', 'silver', 'gold']) as layer
cross join ops.datasets;
insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set)
select
    layer, dataset, partition_date, run_id,
    case when layer = 'gold' then replace(run_id, 'gold', 'silver') else 'sha' end, 'rules'
from ops.ledger;
insert into ops.reasons (run_id, dataset, partition_date, reason, hits)
select run_id, dataset, partition_date, reason, 1
from ops.ledger inner join ops.rules using (dataset)
where layer = 'silver' and reason <> 'rejected';
analyze ops.ledger, ops.receipts, ops.reasons, ops.rules, ops.datasets;
"""


def test_a_year_of_dates_is_told_in_seconds(empty_ledger):  # noqa: F811
    empty_ledger.execute(A_YEAR)
    found = read(metrics.text())
    assert sum(value for (name, *_), value in found.items() if name == "healthcare_dates") == 365


def test_every_metric_of_an_alert_is_there(empty_ledger):  # noqa: F811
    whole_date(empty_ledger)
    with pytest.raises(ValueError), ledger.run(empty_ledger, "bronze", "visits", date(2026, 1, 6), "rules"):
        raise ValueError
    there = {name for name, *_ in read(metrics.text())}
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    named = {name for rule in rules for name in re.findall(r"healthcare_\w+", rule["expr"])}
    assert len(rules) >= 6 and named <= there
    states = {
        state for rule in rules for text in re.findall(r'state=~"([\w|]+)"', rule["expr"]) for state in text.split("|")
    }
    assert states <= {*metrics.STATES}


# What alerts say of a hospital whose metrics are given for each minute: the alert, what it is about, whether it fires.
DUE = "healthcare_next_file_due_timestamp_seconds"
SITUATIONS = {
    f"{DUE}{{dataset='visits'}}": ("3600x120", "HealthcareFileIsLate", "120m", True),
    f"{DUE}{{dataset='billing'}}": ("9000x120", "HealthcareFileIsLate", "120m", False),
    "healthcare_dates{state='stopped'}": ("1x120", "HealthcareDateHasFailed", "10m", True),
    "healthcare_dates{state='done'}": ("1x120", "HealthcareDateHasFailed", "10m", False),
}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool, which comes with Prometheus, is not on PATH")
def test_promtool_accepts_the_alerts_and_they_fire_when_they_should(tmp_path):
    checked = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    cases = []
    for series, (values, alert, moment, fires) in SITUATIONS.items():
        labels = dict(re.findall(r"(\w+)='(\w+)'", series))
        rule = next(r for g in yaml.safe_load(ALERTS.read_text())["groups"] for r in g["rules"] if r["alert"] == alert)
        filled = {
            name: text.replace("{{ $labels.dataset }}", labels.get("dataset", ""))
            .replace("{{ $labels.state }}", labels.get("state", ""))
            .replace("{{ $value }}", "1")
            for name, text in rule["annotations"].items()
        }
        expected = {"exp_labels": labels | rule["labels"], "exp_annotations": filled}
        cases.append(
            {
                "interval": "1m",
                "input_series": [{"series": series.replace("'", '"'), "values": values.replace("x", "+0x")}],
                "alert_rule_test": [
                    {"eval_time": moment, "alertname": alert, "exp_alerts": [expected] if fires else []}
                ],
            }
        )
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": cases}))
    tested = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr
