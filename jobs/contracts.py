"""Writes a data contract (ODCS 3.2) for each dataset and mart into contracts/: `make contracts`.

A contract is made from the catalog, the DDL's comments and the SQL of marts and checks; nothing is written by hand.
`python -m jobs.contracts test` tests the contracts against the running PostgreSQL with datacontract-cli.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from jobs import columns, dictionary, marts, program, schema, settings
from jobs.catalog import CATALOG
from jobs.contract_quality import column_checks, custom, file_checks, mart_checks, rule_check
from jobs.dataset import Column, Dataset

HOME = settings.ROOT / "contracts"
VERSION = "1.0.0"  # of what contracts state; the fingerprint behind it identifies what a contract was made from
RESTRICTED = "restricted"  # the classification of a column that identifies a patient
LOGICAL_TYPES = {"text": "string", "date": "date", "timestamp": "timestamp", "decimal": "number"}
POSTGRES_LOGICAL = {  # any other is a string
    "bigint": "integer",
    "boolean": "boolean",
    "date": "date",
    "double precision": "number",
    "integer": "integer",
    "jsonb": "object",
    "numeric": "number",
    "real": "number",
    "smallint": "integer",
    "timestamp with time zone": "timestamp",
    "timestamp without time zone": "timestamp",
}
AUDIT = {
    "_partition_date": "The date whose file brought the row.",
    "_run_id": "The run that validated it.",
    "_loaded_at": "When it last changed in gold.",
}
CHECK = settings.ROOT / "jobs" / "contract_check.py"
CHECKED_BY = ("tool", "run", "--quiet", "--from", "datacontract-cli[postgres]==1.2.8")


# ---- a dataset -----------------------------------------------------------------------------------------------------


def dataset_contract(dataset: Dataset) -> dict[str, Any]:
    """Returns the contract of a dataset: its gold table, and the rules that rows of its files must obey."""
    table = {
        **table_head(dataset.name, dataset.doc),
        "properties": [
            *(source_property(dataset, column) for column in dataset.columns),
            *(computed_property(*computed) for computed in dataset.computed),
            *(audit_property(dataset, name, doc) for name, doc in AUDIT.items()),
        ],
        "quality": [*(rule_check(dataset, rule) for rule in dataset.rules), *file_checks(dataset)],
    }
    return {
        **head(dataset.name, "public", dataset.rule_set, dataset.doc),
        "schema": [table],
        "slaProperties": [*service_levels(dataset)],
        "customProperties": custom(
            landingFile=f"{{LANDING_DIR}}/YYYY/MM/DD/{dataset.name}.csv",
            orphanDays=dataset.orphan_days if dataset.parents else None,
            amountColumn=dataset.amount,
            dayColumn=dataset.day,
        ),
    }


def source_property(dataset: Dataset, column: Column) -> dict[str, Any]:
    """Returns the contract's entry for a column that comes with the file."""
    is_key = column.name == dataset.key
    return {
        **property_head(column.name, LOGICAL_TYPES[column.type], physical_type(dataset.name, column.name), column.doc),
        **({"primaryKey": True, "primaryKeyPosition": 1, "unique": True} if is_key else {}),
        "required": column.required,
        **({"classification": RESTRICTED} if identifies(dataset, column) else {}),
        **({"examples": [column.example]} if column.example else {}),
        **({"relationships": [relationship(CATALOG[column.references])]} if column.references else {}),
        "quality": [*column_checks(dataset, column)],
        **customized(
            unit=column.unit, rank=[*column.rank], notKnown=column.not_known, marksGroups=column.groups or None
        ),
    }


def computed_property(name: str, kind: str, expression: str) -> dict[str, Any]:
    """Returns the contract's entry for a column that gold computes."""
    return {
        **property_head(name, logical_type(kind), kind, "Computed in gold."),
        "required": False,
        "transformLogic": " ".join(expression.split()),
    }


def audit_property(dataset: Dataset, name: str, doc: str) -> dict[str, Any]:
    """Returns the contract's entry for a column that the load adds."""
    kind = physical_type(dataset.name, name)
    return {**property_head(name, logical_type(kind), kind, doc), "required": True}


def identifies(dataset: Dataset, column: Column) -> bool:
    """Tells whether a column identifies a patient: it is declared so, or is a key on the path to patients."""
    leads = schema.path_to(dataset, "patients") is not None
    to = column.references and schema.path_to(CATALOG[column.references], "patients") is not None
    return column.identifies or bool(to) or (leads and column.name == dataset.key)


def relationship(parent: Dataset) -> dict[str, str]:
    """Returns a foreign key to another contract's table, in the standard's full notation."""
    return {"type": "foreignKey", "to": f"{file_name(parent.name)}#/schema/{parent.name}/properties/{parent.key}"}


def service_levels(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yields when files come, and the greatest age that the newest row of a current table may have.

    Freshness names no element: tools that measure it use the wall clock, and gold may be of any year.
    """
    oldest = 48 + dataset.due_hours
    yield {"id": "frequency", "property": "frequency", "value": 1, "unit": "d", "description": "One file a day."}
    yield {
        "id": "latency",
        "property": "latency",
        "value": dataset.due_hours,
        "unit": "h",
        "element": f"{dataset.name}._partition_date",
        "description": f"A date's file is due {dataset.due_hours} hours after the date has ended (UTC).",
    }
    yield {
        "id": "freshness",
        "property": "freshness",
        "value": oldest,
        "unit": "h",
        "driver": "operational",
        "description": f"The newest _partition_date began at most {oldest} hours ago; see ops.freshness.",
    }
    if dataset.since.year > 1:
        yield {"id": "since", "property": "generalAvailability", "value": f"{dataset.since}T00:00:00Z"}


# ---- a mart --------------------------------------------------------------------------------------------------------


def mart_contract(mart: str, doc: str, comments: dict[str, str]) -> dict[str, Any]:
    """Returns the contract of a mart: its columns, their sources, and the checks that compare it with gold."""
    space, _, name = mart.rpartition(".")
    declared = columns.tables()[mart]
    table = {
        **table_head(name, doc),
        "properties": [mart_property(mart, column, comments.get(column.name, "")) for column in declared.columns],
        "quality": [*mart_checks(mart)],
    }
    return {
        **head(name, space or "public", sha256(marts.selects()[mart].encode()).hexdigest()[:16], doc),
        "schema": [table],
        "customProperties": custom(reads=[*columns.read_by(mart)]),
    }


def mart_property(mart: str, column: columns.TableColumn, doc: str) -> dict[str, Any]:
    """Returns the contract's entry for a mart's column; a copy of a classified column is classified too."""
    key, sources = columns.tables()[mart].key, columns.made_of(mart).get(column.name, {})
    in_key = column.name in key
    return {
        **property_head(column.name, logical_type(column.type), column.type, doc),
        **({"primaryKey": True, "primaryKeyPosition": key.index(column.name) + 1} if in_key else {}),
        "required": column.required,
        **({"classification": RESTRICTED} if any(map(is_copied_identity, sources.items())) else {}),
        **({"transformSourceObjects": [f"{table}.{name}" for table, name in sources]} if sources else {}),
    }


def is_copied_identity(source: tuple[columns.Source, str]) -> bool:
    """Tells whether a mart's column copies one that identifies a patient, from gold or from another mart."""
    (table, name), how = source
    if how != "IDENTITY":
        return False
    if table in CATALOG:
        dataset = CATALOG[table]
        return any(column.name == name and identifies(dataset, column) for column in dataset.columns)
    return table in marts.selects() and any(map(is_copied_identity, columns.made_of(table).get(name, {}).items()))


# ---- what all have -------------------------------------------------------------------------------------------------


def head(name: str, space: str, fingerprint: str, doc: str) -> dict[str, Any]:
    """Returns the opening of a contract."""
    server = {
        "id": "warehouse",
        "server": "warehouse",
        "type": "postgres",
        "host": "${POSTGRES_HOST:-127.0.0.1}",
        "port": "${POSTGRES_PORT:-5432}",
        "database": "${POSTGRES_DB:-ecomdb}",
        "schema": space,
    }
    return {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": f"healthcare-platform:{space}.{name}",
        "name": name,
        "version": f"{VERSION}+{fingerprint}",
        "status": "active",
        "description": {"purpose": doc},
        "servers": [server],
    }


def table_head(name: str, doc: str) -> dict[str, Any]:
    """Returns the opening of a contract's entry for a table."""
    names = {"id": name, "name": name, "physicalName": name, "logicalType": "object", "physicalType": "table"}
    return {**names, "description": doc, "dataGranularityDescription": doc.partition(";")[0]}


def property_head(name: str, logical: str, physical: str, doc: str) -> dict[str, Any]:
    """Returns the opening of a contract's entry for a column."""
    described = {"description": doc} if doc else {}
    return {"id": name, "name": name, "logicalType": logical, "physicalType": physical, **described}


def logical_type(physical: str) -> str:
    """Returns the standard's type for a type of PostgreSQL."""
    return POSTGRES_LOGICAL.get(physical.partition("(")[0], "string")


def physical_type(table: str, name: str) -> str:
    """Returns the type that a column has in PostgreSQL."""
    return next(column.type for column in columns.tables()[table].columns if column.name == name)


def customized(**values: Any) -> dict[str, Any]:
    """Returns `customProperties` with these values, or nothing if none has a value."""
    return {"customProperties": found} if (found := custom(**values)) else {}


def file_name(name: str) -> str:
    """Returns the name of a contract's file."""
    return f"{name}.odcs.yaml"


def contracts() -> dict[str, str]:
    """Returns all contracts as YAML, by file name."""
    found = {dataset.name: dataset_contract(dataset) for dataset in CATALOG.values()}
    for mart, doc, described in dictionary.mart_tables():
        if mart in marts.selects():
            comments = {name: text for name, _, text in described}
            found[mart.rpartition(".")[2]] = mart_contract(mart, doc, comments)
    return {file_name(name): text_of(contract) for name, contract in found.items()}


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and repeated parts in full instead of as aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Returns a text as a YAML node: a block if it has several lines."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, represent_text)


def text_of(contract: dict[str, Any]) -> str:
    """Returns a contract as YAML."""
    return yaml.dump(contract, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def write() -> None:
    """Writes all contracts, and removes those of datasets and marts that no longer exist."""
    HOME.mkdir(exist_ok=True)
    texts = contracts()
    for old in {path.name for path in HOME.glob("*.odcs.yaml")} - {*texts}:
        (HOME / old).unlink()
    for name, text in texts.items():
        (HOME / name).write_text(text)
    print(f"{HOME.relative_to(settings.ROOT)}: {len(texts)} contracts are drawn.")


# ---- datacontract-cli ----------------------------------------------------------------------------------------------


def run_check(command: str, login: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs jobs/contract_check.py over all contracts, in an environment of its own that uv creates once."""
    files = map(str, sorted(HOME.glob("*.odcs.yaml")))
    words = [str(Path(sys.executable).parent / "uv"), *CHECKED_BY, "python", str(CHECK), command, *files]
    # That Python has its own packages. PYTHONPATH and the like would lead it to ours, of other versions.
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(words, env={**given, **login}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def lint() -> None:
    """Lints every contract with datacontract-cli; ends the program with a sentence if one has a fault."""
    tell(run_check("lint", {}), "datacontract-cli finds a fault in contracts/")


def test() -> None:
    """Tests every contract against the running PostgreSQL with datacontract-cli; ends the program if one is broken."""
    server = {name: settings.get(name) for name in ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB")}
    tell(run_check("test", server | login()), "PostgreSQL breaks a contract")


def login() -> dict[str, str]:
    """Returns the loader's login under the names of datacontract-cli: readers may not read what sql/checks read."""
    return {
        "DATACONTRACT_POSTGRES_USERNAME": settings.get("POSTGRES_USER"),
        "DATACONTRACT_POSTGRES_PASSWORD": settings.get("POSTGRES_PASSWORD"),
    }


def tell(done: subprocess.CompletedProcess[str], fault: str) -> None:
    """Prints the output of a check; ends the program with a sentence if the check failed."""
    print(done.stdout, end="", flush=True)
    if done.returncode:
        program.leave(1, f"{fault}, or datacontract-cli could not be had; the lines above say which.")


if __name__ == "__main__":
    commands = {"write": write, "lint": lint, "test": test}
    words = argparse.ArgumentParser(prog="python -m jobs.contracts", description=__doc__)
    words.add_argument("command", nargs="?", choices=commands, default="write")
    commands[words.parse_args().command]()
