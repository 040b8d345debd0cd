"""Tests that contracts follow from the catalog, are valid by the standard, and hold for another tool as well."""

import json
from importlib.resources import files

import jsonschema
import pytest
import yaml

from jobs import contract_import, contracts, marts
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset
from jobs.marts import check, rebuild
from jobs.program import Refused
from tests.sql.test_marts import add

VALIDATOR = jsonschema.Draft201909Validator(
    json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text())
)
DRAWN = {name: yaml.safe_load(text) for name, text in contracts.contracts().items()}
# Columns by which a patient can be found, written down here by hand.
IDENTIFYING = {
    "patients": {"patient_id", "birth_date", "city"},
    "visits": {"visit_id", "patient_id"},
    "admissions": {"admission_id", "visit_id"},
    "treatments": {"treatment_id", "visit_id"},
    "billing": {"bill_id", "visit_id"},
    "mart_patient_stats": {"patient_id", "city"},
    "mart_daily_kpis": set(),
    "mart_department_stats": set(),
    "mart_trust": set(),
}


def table_of(name):
    [table] = DRAWN[contracts.file_name(name)]["schema"]
    return table


def column_of(name, column):
    return next(each for each in table_of(name)["properties"] if each["name"] == column)


def checks_of(name):
    table = table_of(name)
    checks = [check for each in table["properties"] for check in each.get("quality", ())]
    return [*checks, *table["quality"]]


def own(part):
    return {each["property"]: each["value"] for each in part.get("customProperties", ())}


def test_the_contracts_are_those_of_the_catalog_and_the_marts():
    there = {file.name: file.read_text() for file in contracts.HOME.iterdir()}
    assert there == contracts.contracts(), "run `make contracts`"
    named = {*CATALOG, *(mart.rpartition(".")[2] for mart in marts.selects())}
    assert {*there} == {contracts.file_name(name) for name in named}


@pytest.mark.parametrize("name", DRAWN)
def test_a_contract_is_valid_by_the_standards_schema(name):
    VALIDATOR.validate(DRAWN[name])
    assert DRAWN[name]["apiVersion"] == "v3.2.0"


def test_the_schema_refuses_what_is_no_contract():
    spoilt = json.loads(json.dumps(DRAWN["visits.odcs.yaml"]))
    spoilt["schema"][0]["properties"][0]["logicalType"] = "text"
    assert not VALIDATOR.is_valid(spoilt)


@pytest.mark.parametrize("dataset", CATALOG.values(), ids=str)
def test_every_reason_code_is_a_check_with_its_sentence_thresholds_and_action(dataset):
    checks = {check["name"]: check for check in checks_of(dataset.name)}
    assert {*checks} == {*dataset.reasons, "rejected"}
    for code, sentence in dataset.reasons.items():
        limit = dataset.limits[code]
        assert checks[code]["description"] == sentence
        assert own(checks[code])["action"] == ("wait" if code.startswith("orphan_") else "reject")
        assert checks[code]["severity"] == ("error" if limit.stop else "warning")
        told = own(checks[code]).get("stopAt", [])
        assert [(round(level.share, 6), level.rows) for level in limit.stop] == [(e["share"], e["rows"]) for e in told]
    assert own(checks["rejected"])["action"] == "stop"


def test_a_foreign_key_is_a_relationship_and_listed_values_are_a_metric_of_the_library():
    [relation] = column_of("visits", "patient_id")["relationships"]
    assert relation == {"type": "foreignKey", "to": "patients.odcs.yaml#/schema/patients/properties/patient_id"}
    checks = {check["name"]: check for check in column_of("billing", "payment_status")["quality"]}
    listed = checks["unknown_payment_status"]
    assert (listed["type"], listed["metric"], listed["mustBe"]) == ("library", "invalidValues", 0)
    assert listed["arguments"] == {"validValues": ["Paid", "Pending", "Partial"]}


def test_columns_that_identify_a_patient_are_classified():
    for name in DRAWN:
        table = DRAWN[name]["schema"][0]
        found = {each["name"] for each in table["properties"] if each.get("classification") == "restricted"}
        assert found == IDENTIFYING.get(table["name"], found), name


def test_freshness_is_a_service_level():
    levels = {level["property"]: level for level in DRAWN["visits.odcs.yaml"]["slaProperties"]}
    assert (levels["latency"]["value"], levels["latency"]["unit"]) == (CATALOG["visits"].due_hours, "h")
    assert levels["freshness"]["value"] == 48 + CATALOG["visits"].due_hours


def test_types_keys_and_required_columns_are_those_that_postgresql_has(warehouse_server):
    for contract in DRAWN.values():
        [table], space = contract["schema"], contract["servers"][0]["schema"]
        there = warehouse_server.execute(
            "select attname, format_type(atttypid, atttypmod), attnotnull, attnum = any(coalesce(conkey, '{}')) "
            "from pg_attribute left join pg_constraint on conrelid = attrelid and contype = 'p' "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            [f"{space}.{table['name']}"],
        ).fetchall()
        told = [
            (each["name"], each["physicalType"], each["required"], bool(each.get("primaryKey")))
            for each in table["properties"]
        ]
        assert sorted(told) == sorted((name, *more) for name, *more in there), table["name"]


# ---- datacontract-cli ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cli():
    """Skips where datacontract-cli cannot be installed into an environment of its own, as without a network."""
    done = contracts.run_check("lint", {})
    if "datacontract" not in done.stdout and ".odcs.yaml" not in done.stdout:
        pytest.skip(f"datacontract-cli cannot be had: {done.stdout.strip()[-200:]}")
    return done


def test_datacontract_cli_lints_every_contract(cli):
    assert cli.returncode == 0, cli.stdout
    assert cli.stdout.count("passed, ") == len(DRAWN)


@pytest.fixture
def gold(empty_warehouse):
    """Yields a server that the settings name, with a row in each table and the marts built from them."""
    for table in CATALOG:
        if table in ("patients", "visits", "admissions", "treatments", "billing"):
            add(empty_warehouse, table)
    with empty_warehouse.transaction():
        rebuild(empty_warehouse)
        check(empty_warehouse)
    return empty_warehouse


def held_against(connection):
    info = connection.info
    server = {"POSTGRES_HOST": info.host, "POSTGRES_PORT": str(info.port), "POSTGRES_DB": info.dbname}
    return contracts.run_check("test", server | contracts.login())


def test_another_tool_vouches_for_gold_and_finds_a_planted_violation(cli, gold):
    kept = held_against(gold)
    assert kept.returncode == 0, kept.stdout
    assert " failed" not in kept.stdout and "error, " not in kept.stdout
    add(gold, "billing", bill_id="B2", total_amount="-4815162.42", insurance_amount=None, patient_amount=None)
    broken = held_against(gold)
    assert broken.returncode == 1
    assert "billing.odcs.yaml: failed" in broken.stdout and "  negative_total_amount: " in broken.stdout
    assert "mart_daily_kpis.odcs.yaml: failed" in broken.stdout and "  revenue_adds_up: " in broken.stdout
    assert "visits.odcs.yaml: failed" not in broken.stdout
    assert "4815162" not in broken.stdout, "no value of a patient is told"


# ---- import --------------------------------------------------------------------------------------------------------


def declared(source, name):
    scope = {}
    exec(compile(source, name, "exec"), scope)
    return scope[name]


@pytest.mark.parametrize("dataset", CATALOG.values(), ids=str)
def test_a_contract_of_ours_drafts_the_dataset_that_it_was_drawn_from(dataset):
    [(draft, notes)] = contract_import.drafts(contract_import.read(contracts.HOME / contracts.file_name(dataset.name)))
    assert notes == []
    assert [column.reasons for column in draft.columns] and draft.reasons.keys() == dataset.reasons.keys()
    for column, original in zip(draft.columns, dataset.columns, strict=True):
        same = ("name", "type", "required", "one_of", "rank", "references", "identifies", "doc", "unit", "example")
        assert [getattr(column, name) for name in same] == [getattr(original, name) for name in same]
    assert [rule.message for rule in draft.rules] == [rule.sentence for rule in dataset.rules]
    assert (draft.day, draft.amount, draft.due_hours) == (dataset.day or draft.day, dataset.amount, dataset.due_hours)
    assert declared(contract_import.source(draft, notes), dataset.name) == draft


FOREIGN = """
apiVersion: v3.1.0
kind: DataContract
id: 5fd0b1a2
version: 2.0.0
status: draft
slaProperties:
  - {property: generalAvailability, value: "2026-03-02T00:00:00Z"}
  - {property: latency, value: 1, unit: d}
schema:
  - name: labResults
    description: One row per laboratory result.
    properties:
      - name: visit_id
        logicalType: string
        required: true
        relationships: [{to: visits.visit_id}]
      - {name: result_id, logicalType: string, primaryKey: true}
      - {name: resultValue, logicalType: number}
      - {name: resulted_ts, logicalType: timestamp, required: true}
      - {name: urgent, logicalType: boolean}
      - {name: panel, logicalType: object, properties: [{name: code, logicalType: string}]}
      - name: "device\\nimport os"
        logicalType: string
        relationships: [{to: devices.device_id}]
      - name: state
        logicalType: string
        quality: [{metric: invalidValues, arguments: {validValues: [final, draft]}, mustBe: 0}]
    quality:
      - {name: values add up, type: sql, query: select sum(result_value) from lab_results, mustBe: 0}
      - name: Late Result
        type: sql
        query: SELECT COUNT(*) FROM labResults WHERE NOT (resulted_ts >= '2026-01-01')
        mustBe: 0
"""


def test_a_contract_of_another_house_drafts_what_a_file_can_have_and_says_the_rest(tmp_path):
    file = tmp_path / "lab.odcs.yaml"
    file.write_text(FOREIGN)
    [(draft, notes)] = contract_import.drafts(contract_import.read(file))
    assert (draft.name, draft.key, str(draft.since), draft.due_hours) == ("lab_results", "result_id", "2026-03-02", 24)
    assert draft.day == "resulted_ts" and draft.parents == {"visit_id": "visits"}
    types = {column.name: (column.type, column.one_of) for column in draft.columns}
    assert types["urgent"] == ("text", ("true", "false")) and types["state"] == ("text", ("final", "draft"))
    assert types["result_value"] == ("decimal", ()) and "panel" not in types
    assert [(rule.reason, rule.columns) for rule in draft.rules] == [("late_result", ("resulted_ts",))]
    text = contract_import.source(draft, notes)
    for word in ("resultValue", "panel", "devices.device_id", "values add up", "boolean"):
        assert word in text, "a note says what was not taken over as it is"
    assert declared(text, "lab_results") == draft
    assert "\nimport os" not in text, "a name from a contract never becomes code"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a list", "is not a contract of the standard"),
        ("a: {", "cannot be read as YAML"),
        ("{apiVersion: v3.2.0, kind: DataContract, id: x, version: '1'}", "describes no table"),
        (FOREIGN.replace("timestamp", "moment"), "is not a contract of the standard: at schema/0/properties/3"),
    ],
)
def test_what_is_no_contract_is_refused_in_a_sentence(tmp_path, text, sentence):
    file = tmp_path / "x.odcs.yaml"
    file.write_text(text)
    with pytest.raises(Refused, match=sentence):
        [*contract_import.drafts(contract_import.read(file))]


def test_a_draft_overwrites_nothing(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", str(contracts.HOME / "visits.odcs.yaml")])
    with pytest.raises(SystemExit) as end:
        contract_import.main()
    assert end.value.code == 2 and "visits.py already exists" in capsys.readouterr().err


def test_a_dataset_of_another_name_gets_a_contract_without_an_edit(monkeypatch):
    lab = Dataset("lab", "One row.", (Column("lab_id", required=True), Column("visit_id", references="visits")))
    monkeypatch.setitem(CATALOG, "lab", lab)
    monkeypatch.setattr(contracts, "physical_type", lambda *_: "text")
    drawn = contracts.dataset_contract(lab)
    VALIDATOR.validate(drawn)
    assert [each.get("classification") for each in drawn["schema"][0]["properties"]][:2] == ["restricted"] * 2
