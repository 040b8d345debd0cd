"""Drafts a dataset's declaration from a data contract (ODCS): `make contract-import FILE=lab_results.odcs.yaml`.

The draft is a file of jobs/catalog, to be read and corrected. Comments at its top list what the contract says and a
declaration cannot express.
"""

import argparse
import json
import keyword
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import sqlglot
import yaml
from sqlglot import exp
from sqlglot.errors import SqlglotError

from jobs import borders, program, settings
from jobs.catalog import CATALOG
from jobs.dataset import Column, Dataset, Rule
from jobs.program import Refused

HOME = settings.ROOT / "jobs" / "catalog"
TYPES = {"string": "text", "date": "date", "timestamp": "timestamp", "number": "decimal", "integer": "decimal"}
Notes = list[str]


def read(file: Path) -> dict[str, Any]:
    """Returns a contract; raises Refused if the file breaks the standard's JSON schema, or describes no table."""
    try:
        contract = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused(f"{file} cannot be read as YAML ({type(error).__name__}); give the file of a contract.") from None
    schema = json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    if fault := jsonschema.exceptions.best_match(validator.iter_errors(contract)):
        where = "/".join(map(str, fault.absolute_path)) or "the top"
        raise Refused(
            f"{file} is not a contract of the standard: at {where}, {borders.printable(fault.message)[:200]}."
        )
    if not contract.get("schema"):
        raise Refused(f"{file} describes no table; give a contract that has a `schema`.")
    return contract


def drafts(contract: Mapping[str, Any]) -> Iterator[tuple[Dataset, Notes]]:
    """Yields a dataset for each table of a contract, with notes on what could not be taken over.

    Raises Refused for a table from which no dataset can be made.
    """
    levels = {level["property"]: level for level in contract.get("slaProperties", ())}
    own = {each["property"]: each["value"] for each in contract.get("customProperties", ())}
    for table in contract["schema"]:
        notes: Notes = []
        columns = tuple(draft_columns(table, notes))
        if not columns:
            raise Refused(f"{table['name']} has no column that a file can have; correct the contract.")
        names = {column.name for column in columns}
        try:
            yield (
                Dataset(
                    name=spelt(table["name"], notes),
                    doc=" ".join(str(table.get("description") or "One row per TODO.").split()),
                    columns=columns,
                    rules=tuple(draft_rules(table, names, notes)),
                    since=first_date(levels.get("generalAvailability")),
                    due_hours=hours(levels.get("latency"), notes),
                    amount=own.get("amountColumn") if own.get("amountColumn") in names else None,
                    day=next((day for day in (own.get("dayColumn"), first_time(columns)) if day in names), None),
                ),
                notes,
            )
        except ValueError as error:
            raise Refused(f"{table['name']}: {error}") from None


def draft_columns(table: Mapping[str, Any], notes: Notes) -> Iterator[Column]:
    """Yields the columns that a file can have, the key first."""
    properties = [each for each in table.get("properties", ()) if is_in_the_file(each, notes)]
    keys = [each for each in properties if each.get("primaryKey")] or [e for e in properties if e.get("unique")]
    if len(keys) != 1 and properties:
        found = "no key" if not keys else f"a key of {len(keys)} columns"
        notes.append(f"the contract names {found}; a dataset has one key column, its first.")
    for each in sorted(properties, key=lambda each: each not in keys[:1]):
        yield draft_column(each, is_key=each in keys[:1], notes=notes)


def is_in_the_file(declared: Mapping[str, Any], notes: Notes) -> bool:
    """Tells whether a property is a plain column of the file: not nested, not computed, not added by the platform."""
    if declared["name"].startswith("_") or declared.get("transformLogic"):
        return False
    if declared.get("logicalType", "string") in (*TYPES, "boolean", "time"):
        return True
    notes.append(f"{declared['name']} is left out: a file has no {declared['logicalType']}.")
    return False


def draft_column(declared: Mapping[str, Any], is_key: bool, notes: Notes) -> Column:
    """Returns a column for a property of a contract."""
    own = {each["property"]: each["value"] for each in declared.get("customProperties", ())}
    logical = declared.get("logicalType", "string")
    if logical not in TYPES:
        notes.append(f"{declared['name']} is a {logical} in the contract, and text here.")
    values = ("true", "false") if logical == "boolean" else tuple(listed_values(declared))
    if TYPES.get(logical, "text") != "text":
        values = ()
    return Column(
        spelt(declared["name"], notes),
        TYPES.get(logical, "text"),
        required=bool(declared.get("required") or is_key),
        one_of=values,
        rank=tuple(value for value in own.get("rank", ()) if value in values),
        not_known=own.get("notKnown") if own.get("notKnown") in values else None,
        references=referenced(declared, notes),
        doc=" ".join(str(declared.get("description") or "").split()),
        unit=str(own.get("unit") or ""),
        example=str(next(iter(declared.get("examples") or ()), "")),
        identifies=declared.get("classification") == "restricted" and not is_key and "relationships" not in declared,
    )


def listed_values(declared: Mapping[str, Any]) -> Iterator[str]:
    """Yields the values that a property lists: those of its `enum`, or the valid values of its quality rules."""
    for value in declared.get("enum", ()):
        yield str(value["value"])
    if not declared.get("enum"):
        for rule in declared.get("quality", ()):
            yield from map(str, (rule.get("arguments") or {}).get("validValues", ()))


def referenced(declared: Mapping[str, Any], notes: Notes) -> str | None:
    """Returns the dataset of the catalog that a property references; adds a note if there is none."""
    for relation in declared.get("relationships", ()):
        to = relation["to"] if isinstance(relation["to"], str) else relation["to"][0]
        found = re.search(r"/(\w+)/properties/(\w+)$", to) or re.search(r"(\w+)\.(\w+)$", to)
        if found and found[1] in CATALOG and CATALOG[found[1]].key == found[2]:
            return found[1]
        notes.append(f"{declared['name']} refers to {to}, which is the key of no dataset.")
    return None


def draft_rules(table: Mapping[str, Any], names: set[str], notes: Notes) -> Iterator[Rule]:
    """Yields a contract's rules in SQL of the form `select count(*) from t where not (...)`; notes the others."""
    quality = [*table.get("quality", ()), *(q for each in table.get("properties", ()) for q in each.get("quality", ()))]
    for rule in quality:
        if rule.get("type") != "sql":
            continue
        name = str(rule.get("name") or rule.get("id") or "rule")
        holds = condition(rule["query"]) if rule.get("mustBe") == 0 else None
        used = tuple(sorted({column.name for column in holds.find_all(exp.Column)})) if holds else ()
        if holds and used and names.issuperset(used):
            reason = re.sub(r"\W+", "_", name.lower()).strip("_")
            yield Rule(reason, holds.sql(dialect="spark"), used, message=" ".join(rule.get("description", "").split()))
        elif not name.startswith("orphan_"):  # which the reference declares
            notes.append(f"the rule {name} is not a condition on a row: {' '.join(rule['query'].split())[:200]}")


def condition(query: str) -> exp.Expr | None:
    """Returns the condition whose negation a query counts; None for any other query."""
    try:
        select = sqlglot.parse_one(query, dialect="postgres")
    except SqlglotError:
        return None
    where = select.args.get("where") if isinstance(select, exp.Select) and not select.args.get("joins") else None
    return where.this.this.unnest() if where and isinstance(where.this, exp.Not) else None


def spelt(name: str, notes: Notes) -> str:
    """Returns a name in snake case; adds a note if it changed, and raises Refused for a keyword of Python."""
    if keyword.iskeyword(name):
        raise Refused(f"{name} is a word of Python's own; name the table or column otherwise.")
    plain = re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()
    if plain != name:
        notes.append(f"{name} is named {plain} here; columns are found by the header's names.")
    return plain


def first_date(level: Mapping[str, Any] | None) -> date:
    """Returns the date from which on there are files: the contract's, or else today (UTC)."""
    try:
        return date.fromisoformat(str(level["value"])[:10]) if level else datetime.now(timezone.utc).date()
    except ValueError:
        return datetime.now(timezone.utc).date()


def hours(level: Mapping[str, Any] | None, notes: Notes) -> int:
    """Returns how many hours after a date's end its file is due; adds a note if the contract gives no hours or days."""
    each = {"h": 1, "hours": 1, "hour": 1, "d": 24, "days": 24, "day": 24}
    if level is None:
        return Dataset.due_hours
    if level.get("unit") not in each or not isinstance(level["value"], int):
        notes.append(f"the latency of {level['value']} {level.get('unit', '')} is not a number of hours or days.")
        return Dataset.due_hours
    return level["value"] * each[level["unit"]]


def first_time(columns: tuple[Column, ...]) -> str | None:
    """Returns the first required timestamp, by whose day rows are most likely counted, or None."""
    return next((column.name for column in columns if column.type == "timestamp" and column.required), None)


# ---- the file ------------------------------------------------------------------------------------------------------


def source(dataset: Dataset, notes: Notes) -> str:
    """Returns the text of the file that declares a dataset, as `make format` would format it."""
    default = Dataset(dataset.name, dataset.doc, dataset.columns)
    differing = {
        name: repr(getattr(dataset, name))
        for name in ("amount", "day", "due_hours")
        if getattr(dataset, name) != getattr(default, name)
    }
    since = f"date({dataset.since.year}, {dataset.since.month}, {dataset.since.day})"
    words = {"name": repr(dataset.name), "doc": repr(dataset.doc), "since": since}
    words["columns"] = f"({''.join(f'{call(each)}, ' for each in dataset.columns)})"
    words |= differing
    if dataset.rules:
        words["rules"] = f"({''.join(f'{call(each)}, ' for each in dataset.rules)})"
    text = "".join(f"# TODO: {borders.printable(note)}\n" for note in notes)
    text += "from datetime import date\n\nfrom jobs.dataset import Column, Dataset" + ", Rule" * bool(dataset.rules)
    text += f"\n\n{dataset.name} = Dataset({', '.join(f'{name}={value}' for name, value in words.items())},)\n"
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--config", str(settings.ROOT / "pyproject.toml"), "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return formatted.stdout


def call(part: Column | Rule) -> str:
    """Returns the call that makes a column or a rule, without arguments that have their default."""
    if isinstance(part, Rule):
        words = [repr(part.reason), repr(part.holds), repr(part.columns)]
        return f"Rule({', '.join(words)}, message={part.message!r})"
    default = Column(part.name)
    names = ("required", "one_of", "rank", "not_known", "references", "identifies", "doc", "unit", "example")
    words = [repr(part.name), *([repr(part.type)] if part.type != "text" else [])]
    words += [f"{name}={getattr(part, name)!r}" for name in names if getattr(part, name) != getattr(default, name)]
    return f"Column({', '.join(words)})"


def main() -> None:
    """Writes a draft for each table of the file named on the command line; overwrites no file."""
    words = argparse.ArgumentParser(prog="make contract-import", description=__doc__)
    words.add_argument("file", type=Path)
    words.add_argument("--to", type=Path, default=HOME, help="another directory than jobs/catalog")
    given = words.parse_args()
    if not given.file.name:
        program.leave(2, "Say which contract, as in: make contract-import FILE=lab_results.odcs.yaml")
    try:
        found = [*drafts(read(given.file))]
        for dataset, _ in found:
            if (given.to / f"{dataset.name}.py").exists():
                raise Refused(f"jobs/catalog/{dataset.name}.py already exists; move it away, then draft again.")
    except Refused as error:
        program.leave(2, str(error))
    for dataset, notes in found:
        (given.to / f"{dataset.name}.py").write_text(source(dataset, notes))
        borders.say("\n".join([f"{given.to / f'{dataset.name}.py'} is drafted.", *(f"  {note}" for note in notes)]))


if __name__ == "__main__":
    main()
