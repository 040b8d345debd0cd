"""Tests that the lineage of a date, taken from the ledger, is one graph from its files to every mart."""

import json
import re
from datetime import date
from xml.etree import ElementTree

import jsonschema
import luigi
import pytest
from openlineage.client.event_v2 import RunState
from openlineage.client.serde import Serde

from dashboards import graph
from dashboards import lineage as drawing
from jobs import columns, ledger, marts, warehouse
from jobs.catalog import CATALOG
from pipelines import lineage, mart_columns, openlineage, runs, scheduler, task_log, tasks
from tests.support.openlineage_core import RUN_EVENT

# Luigi warns of how it reads its own [core], and of what it does not read there.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:luigi.parameter"),
    pytest.mark.filterwarnings("ignore::luigi.parameter.UnconsumedParameterWarning"),
]
VALIDATOR = jsonschema.Draft202012Validator(RUN_EVENT)
DAY, OTHER = date(2026, 1, 5), date(2026, 1, 6)
LAYERS = {"bronze": tasks.Bronze, "silver": tasks.Silver, "gold": tasks.Gold}
NUMBERS = {
    "bronze": {"bronze_rows": 10, "bronze_bytes": 900},
    "silver": {"bronze_rows": 10, "bronze_bytes": 900, "accepted": 8, "rejected": 2},
    "gold": {"staged": 8, "inserted": 5, "updated": 2, "unchanged": 1, "removed": 0},
    "marts": {},
}
NUMBERS["silver"] |= {"delta_accepted": 7, "delta_rejected": 3}


@pytest.fixture
def empty_ledger(empty_warehouse, tmp_path, monkeypatch):
    """Yields an empty warehouse that the settings name; provides a directory for the events."""
    info = empty_warehouse.info
    for name, value in (("HOST", info.host), ("PORT", str(info.port)), ("DB", info.dbname)):
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    monkeypatch.setenv("STACK_DIR", str(tmp_path))
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    yield empty_warehouse
    warehouse.process_connection().close()  # or the server would wait for it when it is stopped
    warehouse.open_connection.cache_clear()


def settle(connection, layer, dataset="", day=DAY, **more):
    """Writes a finished run to the ledger, as the jobs do."""
    name = dataset or layer
    with ledger.run(connection, layer, name, day, "rules", runs.log(day)) as row:
        row |= NUMBERS[layer] | more
        if layer == "silver":
            hits = {code: 0 for code in CATALOG[dataset].reasons} | {f"missing_{CATALOG[dataset].key}": 2}
            connection.cursor().executemany(
                "insert into ops.reasons (run_id, dataset, partition_date, reason, hits) values (%s, %s, %s, %s, %s)",
                [(row["run_id"], dataset, day, code, number) for code, number in hits.items()],
            )
        ledger.settle(connection, row, "made from")


def whole_date(connection, day=DAY):
    """Writes to the ledger what all tasks of a date write; returns the tasks."""
    for layer in LAYERS:
        for dataset in CATALOG:
            settle(connection, layer, dataset, day)
    settle(connection, "marts", day=day)
    return [task(dataset=name, date=day) for task in LAYERS.values() for name in CATALOG] + [tasks.Marts(date=day)]


def events(home):
    """Returns all events, after checking each against the core of the specification."""
    found = [json.loads(line) for line in (home / "lineage" / "events.jsonl").read_text().splitlines()]
    for event in found:
        VALIDATOR.validate(event)
    return found


def emit(task, state=RunState.COMPLETE, error=None):
    openlineage.emit(task, state, error, lineage.describe, lineage.home())


def names(event, side):
    return {(each["namespace"], each["name"]) for each in event[side]}


def of(event, side, name):
    return next(each for each in event[side] if each["name"] == name)


def test_a_date_is_one_graph_from_every_file_to_every_mart(empty_ledger, tmp_path):
    for task in whole_date(empty_ledger):
        emit(task, RunState.START)
        emit(task)
    found = events(tmp_path)
    graph = {}
    for event in found:
        job = (event["job"]["namespace"], event["job"]["name"], "job")
        for source in names(event, "inputs"):
            graph.setdefault(source, set()).add(job)
        graph.setdefault(job, set()).update(names(event, "outputs"))
    space = f"postgres://{empty_ledger.info.host}:{empty_ledger.info.port}"
    for dataset in CATALOG.values():
        file = next(name for name in graph if name[0] == "file" and name[1].endswith(f"/2026/01/05/{dataset.name}.csv"))
        seen, ahead = set(), [file]
        while ahead:
            at = ahead.pop()
            ahead += graph.get(at, set()) - seen
            seen.add(at)
        assert ("s3://healthcare-bronze", f"{dataset.name}/2026/01/05/{dataset.name}.csv") in seen
        assert {("s3://healthcare-silver", f"{kind}{dataset.name}") for kind in ("", "rejected/")} <= seen
        assert (space, f"{empty_ledger.info.dbname}.public.{dataset.name}") in seen
        reached = {mart for mart in marts.selects() if dataset.name in columns.read_by(mart)}
        assert reached, "each dataset has a mart"
        for mart in reached:
            name = mart if "." in mart else f"public.{mart}"
            assert (space, f"{empty_ledger.info.dbname}.{name}") in seen
    starts = {event["run"]["runId"] for event in found if event["eventType"] == "START"}
    ends = {event["run"]["runId"] for event in found if event["eventType"] == "COMPLETE"}
    assert starts == ends and len(starts) == 3 * len(CATALOG) + 1


def test_the_numbers_versions_and_assertions_are_the_ledgers(empty_ledger, tmp_path):
    whole_date(empty_ledger)
    for task in (tasks.Bronze, tasks.Silver, tasks.Gold):
        emit(task(dataset="visits", date=DAY))
    bronze, silver, gold = events(tmp_path)
    assert bronze["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 10
    accepted, rejected = of(silver, "outputs", "visits"), of(silver, "outputs", "rejected/visits")
    assert [each["outputFacets"]["outputStatistics"]["rowCount"] for each in (accepted, rejected)] == [8, 2]
    assert [each["facets"]["version"]["datasetVersion"] for each in (accepted, rejected)] == ["7", "3"]
    assert accepted["facets"]["storage"]["storageLayer"] == "delta"
    assert gold["inputs"][0]["facets"]["version"]["datasetVersion"] == "7"
    assert gold["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 7
    [source] = [each for each in silver["inputs"] if each["name"].endswith(".csv")]
    told = {each["assertion"]: each for each in source["inputFacets"]["dataQualityAssertions"]["assertions"]}
    assert {*told} == {*CATALOG["visits"].reasons}
    assert (told["missing_visit_id"]["success"], told["missing_visit_id"]["actual"]) == (False, "2")
    assert told["orphan_patient_id"]["success"] and told["orphan_patient_id"]["severity"] == "warn"
    assert told["orphan_patient_id"]["column"] == "patient_id"
    fields = {each["name"]: each["type"] for each in accepted["facets"]["schema"]["fields"]}
    assert fields["visit_start_ts"] == "timestamp" and {*fields} == {*CATALOG["visits"].names}


def column_path(found, space, table, column):
    """Returns the columns of files from which a column is derived, through all events."""
    sources, ahead = set(), [(space, table, column)]
    while ahead:
        namespace, name, field = ahead.pop()
        if namespace == "file":
            sources.add((name.rpartition("/")[2], field))
        for event in found:
            for each in event["outputs"]:
                if (each["namespace"], each["name"]) == (namespace, name):
                    made = each["facets"].get("columnLineage", {"fields": {}})["fields"].get(field, {"inputFields": []})
                    ahead += [(f["namespace"], f["name"], f["field"]) for f in made["inputFields"]]
    return sources


def test_a_column_of_a_mart_leads_back_to_columns_of_files(empty_ledger, tmp_path):
    for task in whole_date(empty_ledger):
        emit(task)
    found, space = events(tmp_path), f"postgres://{empty_ledger.info.host}:{empty_ledger.info.port}"
    for mart, column, sources in (
        ("mart_daily_kpis", "total_revenue", {("billing.csv", "total_amount")}),
        ("mart_daily_kpis", "total_visits", {("visits.csv", "visit_id")}),
        ("mart_patient_stats", "city", {("patients.csv", "city")}),
        ("mart_department_stats", "avg_los_days", {("admissions.csv", "admit_ts"), ("admissions.csv", "discharge_ts")}),
    ):
        assert column_path(found, space, f"{empty_ledger.info.dbname}.public.{mart}", column) == sources, column


def test_every_column_of_a_mart_is_derived_from_its_sql():
    for mart in marts.selects():
        made = columns.made_of(mart)
        assert {*made} == {column.name for column in columns.tables()[mart].columns}, mart
        assert all(source.table in columns.tables() for of in made.values() for source in of), mart
        assert columns.read_by(mart), mart


def test_several_dates_that_run_as_one_are_several_runs(empty_ledger, tmp_path):
    for day in (DAY, OTHER):
        settle(empty_ledger, "bronze", "visits", day)
    # A task of several dates writes the file of the first of them.
    empty_ledger.execute("update ops.ledger set log = %s", [runs.log(DAY)])
    task = tasks.Bronze(dataset="visits", date=(DAY, OTHER))
    emit(task, RunState.START)
    emit(task)
    found = events(tmp_path)
    assert [event["eventType"] for event in found] == ["START", "START", "COMPLETE", "COMPLETE"]
    assert [event["run"]["facets"]["nominalTime"]["nominalStartTime"][:10] for event in found] == [
        *map(str, (DAY, OTHER, DAY, OTHER))
    ]
    assert found[0]["run"]["runId"] == found[2]["run"]["runId"] != found[3]["run"]["runId"]


def test_of_several_dates_those_that_are_done_complete_where_another_fails(empty_ledger, tmp_path):
    settle(empty_ledger, "bronze", "visits", DAY)
    with ledger.runs(empty_ledger, "bronze", "visits", [OTHER], "rules", runs.log(DAY)) as rows:
        row = rows[OTHER] | {
            "outcome": "failed",
            "error": "the file 2026/01/06/visits.csv has not landed; put it there.",
        }
        ledger.write(empty_ledger, "ops.ledger", row)
    emit(tasks.Bronze(dataset="visits", date=(DAY, OTHER)), RunState.FAIL, task_log.Failed("both"))
    done, failed = events(tmp_path)
    assert (done["eventType"], failed["eventType"]) == ("COMPLETE", "FAIL")
    assert "has not landed" in failed["run"]["facets"]["errorMessage"]["message"]
    assert "errorMessage" not in done["run"]["facets"]


def test_an_error_is_a_sentence_without_values(empty_ledger, tmp_path):
    emit(tasks.Silver(dataset="visits", date=DAY), RunState.FAIL, ValueError("QZAN01 is not a number"))
    emit(tasks.Silver(dataset="visits", date=DAY), RunState.FAIL, "Task died unexpectedly with exit code -9")
    emit(tasks.Silver(dataset="visits", date=DAY), RunState.FAIL, task_log.Failed("visits of the date have no header."))
    told = [event["run"]["facets"]["errorMessage"]["message"] for event in events(tmp_path)]
    assert "QZAN01" not in json.dumps(told) and "ValueError" in told[0]
    assert told[1:] == ["Silver died or took too long; run the date again.", "visits of the date have no header."]


def test_wrappers_and_tasks_of_no_data_have_events_too(empty_ledger, tmp_path):
    for task in (tasks.Day(date=DAY), tasks.BronzeIngestion(date=DAY), tasks.Maintenance(date=DAY)):
        emit(task, RunState.START)
        emit(task)
    assert [event["job"]["name"] for event in events(tmp_path)][::2] == ["Day", "BronzeIngestion", "Maintenance"]


def test_where_postgresql_is_down_a_failure_is_told_and_nothing_else(empty_ledger, tmp_path, monkeypatch, caplog):
    caplog.set_level("WARNING", "luigi-interface")  # Luigi may have been told to say less
    monkeypatch.setenv("POSTGRES_PORT", "1")
    emit(tasks.Marts(date=DAY), RunState.FAIL, task_log.Failed("PostgreSQL does not answer."))
    emit(tasks.Marts(date=DAY), RunState.COMPLETE)
    [failed] = events(tmp_path)
    assert failed["run"]["facets"]["errorMessage"]["message"] == "PostgreSQL does not answer."
    assert "has no lineage event COMPLETE (OperationalError); its run goes on." in caplog.text
    monkeypatch.setenv("POSTGRES_PORT", str(empty_ledger.info.port))


def test_marts_are_read_once_and_again_when_their_sql_changes(empty_ledger, tmp_path, monkeypatch):
    first = mart_columns.all_marts()
    assert {*first} == {*marts.selects()}
    monkeypatch.setattr(mart_columns, "derived", lambda: {"another": {}})
    assert mart_columns.all_marts() == json.loads(json.dumps(first))
    monkeypatch.setattr(marts, "rule_set", lambda: "another")
    assert mart_columns.all_marts() == {"another": {}}
    assert len([*(tmp_path / "lineage").glob("marts-*.json")]) == 1


def test_no_event_is_too_long_for_a_server(empty_ledger, tmp_path):
    for task in whole_date(empty_ledger):
        emit(task)
    assert max(len(Serde.to_json(event)) for event in events(tmp_path)) < 200_000


# ---- through Luigi -------------------------------------------------------------------------------------------------


def job(task, script, *words):
    """Writes to the ledger what a job writes, without Spark; refuses the file of one dataset."""
    layer = {"jobs/landing_to_bronze.py": "bronze", "jobs/bronze_to_silver.py": "silver"}.get(script, "gold")
    with warehouse.connect() as connection:
        if words[0] == refused.get("dataset"):
            raise task_log.Failed("the file 2026/01/05/patients.csv has not landed; put it there.")
        if script == "jobs/gold_to_marts.py":
            settle(connection, "marts")
        for day in words[1:]:
            settle(connection, layer, words[0], date.fromisoformat(day))


refused = {}


@pytest.fixture
def through_luigi(empty_ledger, monkeypatch):
    """Runs our tasks by Luigi, each in the process that Luigi forks for it; only their jobs are not the real ones."""

    def made_in(task):
        name = task.dataset if hasattr(task, "dataset") else "marts"
        marker = ledger.marker(task.ledger[0], name, task.date)
        return marker and marker["turn"]

    monkeypatch.setattr(tasks.MarkedTask, "job", job)
    monkeypatch.setattr(ledger, "marker", stands)
    for each in (*LAYERS.values(), tasks.Marts):
        monkeypatch.setattr(each, "made_in", made_in)
    for cached in (tasks.session, tasks.stale_since, scheduler.disabled):
        cached.cache_clear()
    tasks.SEEN.clear()

    def run(*wanted):
        return luigi.build(wanted, local_scheduler=True, workers=3, log_level="CRITICAL")

    yield run
    refused.clear()
    tasks.SEEN.clear()
    tasks.session.cache_clear()


def stands(layer, dataset, day, _=None):
    """Returns the marker of a partition, whatever it was made from."""
    query = "select * from ops.receipts where layer = %s and dataset = %s and partition_date = %s"
    return lineage.first(query, layer, dataset, day)


def test_every_task_of_a_date_starts_and_completes_by_luigi(through_luigi, empty_ledger, tmp_path):
    assert through_luigi(tasks.Day(date=DAY))
    found = events(tmp_path)
    kinds = {kind: [e for e in found if e["eventType"] == kind] for kind in ("START", "COMPLETE", "FAIL")}
    ids = {kind: sorted(event["run"]["runId"] for event in of) for kind, of in kinds.items()}
    assert ids["START"] == ids["COMPLETE"] and ids["FAIL"] == []
    jobs = {event["job"]["name"] for event in kinds["COMPLETE"]}
    assert {f"{layer}.{name}" for layer in ("Bronze", "Silver", "Gold") for name in CATALOG} < jobs
    assert {"Marts", "QualityGate", "Revalidation", "BronzeIngestion", "SilverPipeline", "GoldPipeline", "Day"} < jobs
    assert len(kinds["COMPLETE"]) == len(jobs), "each once"
    rows = [
        of(e, "outputs", "visits")["outputFacets"] for e in kinds["COMPLETE"] if e["job"]["name"] == "Silver.visits"
    ]
    assert rows[0]["outputStatistics"]["rowCount"] == 8
    assert [*(tmp_path / "lineage" / "running").iterdir()] == []
    assert "healthcare_run_rows" in (tmp_path / "dashboards" / "metrics.txt").read_text()


def test_a_task_that_fails_by_luigi_has_its_sentence_and_keeps_others_from_starting(through_luigi, tmp_path):
    refused["dataset"] = "patients"
    assert not through_luigi(tasks.Day(date=DAY))
    found = events(tmp_path)
    [failed] = [event for event in found if event["eventType"] == "FAIL"]
    assert failed["job"]["name"] == "Bronze.patients"
    assert "has not landed" in failed["run"]["facets"]["errorMessage"]["message"]
    assert not {event["job"]["name"] for event in found} & {"Silver.patients", "Marts", "Day"}


# ---- the drawing ---------------------------------------------------------------------------------------------------


def test_the_drawing_of_a_date_has_every_file_object_table_and_mart(empty_ledger, tmp_path, monkeypatch, capsys):
    whole_date(empty_ledger)
    nodes, edges = drawing.of_date(DAY)
    names = {node.name for node in nodes.values()}
    for dataset in CATALOG:
        assert {f"2026/01/05/{dataset}.csv", f"s3://healthcare-bronze/{dataset}/2026/01/05/{dataset}.csv"} <= names
        assert {f"s3://healthcare-silver/{dataset}", f"s3://healthcare-silver/rejected/{dataset}", dataset} <= names
    assert {*marts.selects()} <= names
    named = {(nodes[source].name, nodes[target].name) for source, target in edges}
    assert ("billing", "mart_daily_kpis") in named and ("treatments", "mart_daily_kpis") not in named
    assert ("mart_daily_kpis", "ops.mart_trust") in named
    monkeypatch.setattr("sys.argv", ["make lineage", "--date", str(DAY)])
    drawing.main()
    text = (tmp_path / "dashboards" / "lineage.html").read_text()
    tree = ElementTree.fromstring(re.search("<svg.*</svg>", text)[0])
    titles = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(titles) == sorted([f"Lineage of {DAY}", *(node.name for node in nodes.values())])
    assert len([*tree.iter("{http://www.w3.org/2000/svg}path")]) == len(edges)
    assert "10 rows" in text and "version 7" in text and "<script" not in text
    assert "lineage.html is drawn" in capsys.readouterr().out


def test_the_drawing_of_a_column_leads_to_those_of_files(empty_ledger, tmp_path, monkeypatch):
    whole_date(empty_ledger)
    nodes, edges = drawing.of_column("mart_department_stats", "avg_los_days", DAY)
    assert {(node.text, node.name) for node in nodes.values() if node.group == "file"} == {
        ("admit_ts", "2026/01/05/admissions.csv"),
        ("discharge_ts", "2026/01/05/admissions.csv"),
    }
    assert len(edges) == 8
    monkeypatch.setattr("sys.argv", ["make lineage", "--column", "mart_department_stats.avg_los_days"])
    drawing.main()
    assert "discharge_ts" in (tmp_path / "dashboards" / "lineage-mart_department_stats.avg_los_days.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--date", "2026-01-06"], "2026-01-06 has not run; run it first"),
        (
            ["--date", "2026-01-05", "--column", "visits.status"],
            "'visits.status' is not a column of a mart; the marts are",
        ),
        ([], "No date is in gold yet"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_sentence(empty_ledger, monkeypatch, capsys, words, sentence):
    monkeypatch.setattr("sys.argv", ["make lineage", *words])
    with pytest.raises(SystemExit) as end:
        drawing.main()
    assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_nodes_stand_behind_all_that_lead_to_them_and_no_two_in_one_place():
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c"), ("c", "e")]
    ranks = graph.ranks("abcdef", edges)
    assert ranks == {"a": 0, "b": 1, "c": 2, "d": 0, "e": 3, "f": 0}
    nodes = {name: graph.Node(f"<{name}>", name, "", "gold", ranks[name]) for name in "abcdef"}
    tree = ElementTree.fromstring(graph.svg(nodes, edges, "A & B"))
    places = [(each.get("x"), each.get("y")) for each in tree.iter("{http://www.w3.org/2000/svg}rect")]
    assert len({*places}) == len(nodes)
    assert "<svg" in graph.svg({}, [], "nothing")
