"""Describes, from the ledger, what a task reads and writes: files, objects, Delta tables and PostgreSQL tables.

pipelines/openlineage.py turns the descriptions into events, dashboards/lineage.py into a drawing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timezone
from pathlib import Path
from typing import Any

import luigi
import psycopg
from openlineage.client.event_v2 import Dataset as Place
from openlineage.client.event_v2 import InputDataset, OutputDataset, RunState, set_producer
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    data_quality_assertions_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    documentation_dataset,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
    schema_dataset,
    storage_dataset,
)
from openlineage.client.naming.dataset import S3, LocalFileSystem, Postgres
from psycopg.rows import dict_row

from jobs import lake_paths, landing, program, settings, thresholds, warehouse
from jobs.catalog import CATALOG, expected
from jobs.dataset import TYPES, Dataset
from pipelines import mart_columns, openlineage
from pipelines.openlineage import TaskRun

PRODUCER = "urn:healthcare-platform:pipelines.lineage"
Row = Mapping[str, Any]
Fields = list[tuple[str, str, str]]  # name, type, description
Made = dict[str, list[tuple[Place, str, str]]]  # column -> (place, column, how)


@dataclass
class Flow:
    """Lists the datasets that one run of a task reads and writes."""

    inputs: list[InputDataset] = field(default_factory=list)
    outputs: list[OutputDataset] = field(default_factory=list)


def home() -> Path:
    """Returns the directory that holds the lineage events."""
    return settings.path("STACK_DIR") / "lineage"


def observe(*tasks: type[luigi.Task]) -> None:
    """Registers handlers so that tasks of these classes emit lineage events."""
    set_producer(PRODUCER)
    for each in tasks:
        openlineage.observe(each, describe, home)


def rotate(before: datetime) -> int:
    """Limits the size of the event files, as openlineage.rotate does; returns the number of files removed."""
    return openlineage.rotate(home(), before)


# ---- runs ----------------------------------------------------------------------------------------------------------


def describe(task: luigi.Task, state: RunState, error: Any) -> Iterator[TaskRun]:
    """Yields a run for each date of a task; when a task of several dates fails, some of its dates may be done."""
    layer, dataset = getattr(task, "ledger", ("", "all"))
    for one in getattr(task, "ones", [task]):
        row, found = None, Flow()
        try:
            row = None if state == RunState.START else this_run(layer, dataset, one.date, getattr(task, "log", ""))
            found = flow(layer, dataset, one.date, row)
        except psycopg.Error:
            if state != RunState.FAIL:  # the task may have failed because PostgreSQL is down
                raise
        is_done = state == RunState.FAIL and row is not None and row["outcome"] == "done"
        yield TaskRun(
            namespace="healthcare-platform",
            job=".".join([task.task_family] + [dataset] * (dataset in CATALOG)),
            key=str(one.date),
            doc=(type(task).__doc__ or "").strip().split("\n")[0],
            day=datetime.combine(one.date, time(), timezone.utc),
            state=RunState.COMPLETE if is_done else None,
            error="" if is_done or state != RunState.FAIL else sentence(task, row, error),
            inputs=found.inputs,
            outputs=found.outputs,
        )


def sentence(task: luigi.Task, row: Row | None, error: Any) -> str:
    """Returns why a task failed, from the ledger if it has the error; the sentence contains no patient value."""
    if row and row["error"]:
        return str(row["error"])
    if isinstance(error, BaseException):
        # The last line that the job printed, or the platform's own sentence for the error.
        return str(error) if type(error).__name__ == "Failed" else program.sentence(error)
    return f"{task.task_family} died or took too long; run the date again."


def this_run(layer: str, dataset: str, day: date, log: str) -> Row | None:
    """Returns the ledger row of this process's run; None if there is none, as for a task that only waits."""
    query = "select * from ops.ledger where layer = %s and dataset = %s and partition_date = %s and log = %s"
    return first(f"{query} order by turn desc limit 1", layer, dataset, day, log) if layer else None


def current_run(layer: str, dataset: str, day: date) -> Row | None:
    """Returns the ledger row of a partition's current run, or None."""
    query = "select ledger.* from ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date)"
    return first(f"{query} where layer = %s and dataset = %s and partition_date = %s", layer, dataset, day)


def first(query: str, *arguments: Any) -> Row | None:
    """Returns the first row of a query as a dict, or None."""
    return next(iter(rows(query, *arguments)), None)


def rows(query: str, *arguments: Any) -> list[dict[str, Any]]:
    """Returns the rows of a query as dicts."""
    with warehouse.process_connection().cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, arguments).fetchall()


# ---- flows ---------------------------------------------------------------------------------------------------------


def flow(layer: str, name: str, day: date, row: Row | None) -> Flow:
    """Returns what a task of a layer reads and writes, with row counts and sizes if `row` holds its ledger row."""
    if name in CATALOG and layer in OF_DATASET:
        return OF_DATASET[layer](CATALOG[name], day, row)
    return OF_DATE.get(layer, lambda *_: Flow())(day, row)


def to_bronze(dataset: Dataset, day: date, row: Row | None) -> Flow:
    """Describes the copy of a landing file, byte for byte."""
    file, object_ = landing_file(dataset, day), bronze_object(dataset, day)
    fields = [(column.name, "text", column.doc) for column in dataset.columns]
    same = {column.name: [(file, column.name, "IDENTITY")] for column in dataset.columns}
    size = {"rowCount": row["bronze_rows"], "size": row["bronze_bytes"], "fileCount": 1} if row else {}
    return Flow(
        [read_from(file, dataset.doc, "FILE", fields, size)],
        [written_to(object_, dataset.doc, "FILE", fields, size, same)],
    )


def to_silver(dataset: Dataset, day: date, row: Row | None) -> Flow:
    """Describes validation: each record of a bronze object becomes an accepted or a rejected row."""
    source = bronze_object(dataset, day)
    raw = [(column.name, "text", column.doc) for column in dataset.columns]
    typed = [(column.name, TYPES[column.type], column.doc) for column in dataset.columns]
    size = {"rowCount": row["bronze_rows"], "size": row["bronze_bytes"], "fileCount": 1} if row else {}
    parsed = {
        column.name: [(source, column.name, "IDENTITY" if column.type == "text" else "TRANSFORMATION")]
        for column in dataset.columns
    }
    copied = {column.name: [(source, column.name, "IDENTITY")] for column in dataset.columns}
    ruled = [(source, name, "FILTER") for rule in dataset.rules for name in rule.columns]
    joined = [(silver_table(CATALOG[p]), CATALOG[p].key, "JOIN") for p in dataset.parents.values()]
    inputs = [read_from(source, dataset.doc, "FILE", raw, size, assertions(dataset, row))]
    for parent in dict.fromkeys(dataset.parents.values()):
        inputs.append(read_from(silver_table(CATALOG[parent]), CATALOG[parent].doc, "TABLE", []))
    outputs = []
    for kind, fields, made in (("accepted", typed, parsed), ("rejected", raw, copied)):
        number = {"rowCount": row[kind]} if row else {}
        place, delta = silver_table(dataset, kind), row[f"delta_{kind}"] if row else None
        outputs.append(written_to(place, dataset.doc, "TABLE", fields, number, made, [*ruled, *joined], delta))
    return Flow(inputs, outputs)


def to_gold(dataset: Dataset, day: date, row: Row | None) -> Flow:
    """Describes the load of accepted rows into a table by key."""
    source, target = silver_table(dataset), table(dataset.name)
    typed = [(column.name, TYPES[column.type], column.doc) for column in dataset.columns]
    silver = current_run("silver", dataset.name, day) if row else None
    fields = [*typed, *((name, kind, "Computed in gold.") for name, kind, _ in dataset.computed)]
    made: Made = {column.name: [(source, column.name, "IDENTITY")] for column in dataset.columns}
    for name, _, expression in dataset.computed:
        used = [word for word in dataset.names if re.search(rf"\b{word}\b", expression)]
        made[name] = [(source, word, "TRANSFORMATION") for word in used]
    read = {"rowCount": silver["accepted"]} if silver else {}
    changed = {"rowCount": (row["inserted"] or 0) + (row["updated"] or 0)} if row else {}
    version = silver["delta_accepted"] if silver else None
    return Flow(
        [read_from(source, dataset.doc, "TABLE", typed, read, version=version)],
        [written_to(target, dataset.doc, "TABLE", fields, changed, made)],
    )


def to_marts(day: date, row: Row | None) -> Flow:
    """Describes the build of all marts from gold in one transaction; a mart that another mart reads is not an input."""
    inputs: dict[str, InputDataset] = {}
    outputs, all_marts = [], mart_columns.all_marts()
    for mart, known in all_marts.items():
        made: Made = {c: [(table(t), n, how) for t, n, how in sources] for c, sources in known["made_of"].items()}
        indirect = [(table(t), name, clause) for t, name, clause in known["influences"]]
        number = {"rowCount": warehouse.value(warehouse.process_connection(), f"select count(*) from {mart}")}
        fields = [tuple(column) for column in known["columns"]]
        for name in set(known["reads"]) - {*all_marts}:
            doc = CATALOG[name].doc if name in CATALOG else ""
            inputs[name] = read_from(table(name), doc, "TABLE", [])
        outputs.append(written_to(table(mart), known["doc"], "TABLE", fields, number if row else {}, made, indirect))
    return Flow([inputs[name] for name in sorted(inputs)], outputs)


def to_gate(day: date, row: Row | None) -> Flow:
    """Describes the quality gate, which reads the rejected rows of a date in silver."""
    stops = {stop["dataset"] for stop in thresholds.stops(warehouse.process_connection(), day)}
    held = {name: [assertion("rejects_below_stop_level", name not in stops)] for name in expected(day)}
    return Flow(
        [read_from(silver_table(d, "rejected"), d.doc, "TABLE", [], {}, held[d.name]) for d in expected(day).values()]
    )


def to_revalidated(day: date, row: Row | None) -> Flow:
    """Describes the revalidation of partitions whose parents came or went, whatever their date."""
    found = Flow()
    if row:
        query = "select * from ops.ledger where layer = 'silver' and log = %s and turn > %s and outcome = 'done'"
        for each in rows(f"{query} order by turn", row["log"], row["turn"]):
            part = to_silver(CATALOG[each["dataset"]], each["partition_date"], each)
            found.inputs += part.inputs
            found.outputs += part.outputs
    return found


def to_pages(day: date, row: Row | None) -> Flow:
    """Describes the build of the dashboards' pages from the marts."""
    folder = LocalFileSystem(str(settings.path("STACK_DIR") / "dashboards"))
    inputs = [read_from(table(mart), known["doc"], "TABLE", []) for mart, known in mart_columns.all_marts().items()]
    return Flow(inputs, [written_to(place_of(folder), "The dashboards as static pages.", "FILE", [], {}, {})])


OF_DATASET: dict[str, Callable[[Dataset, date, Row | None], Flow]] = {
    "bronze": to_bronze,
    "silver": to_silver,
    "gold": to_gold,
}
OF_DATE: dict[str, Callable[[date, Row | None], Flow]] = {
    "gold": to_gate,
    "revalidated": to_revalidated,
    "marts": to_marts,
    "pages": to_pages,
}


# ---- places --------------------------------------------------------------------------------------------------------


def place_of(named: Any) -> Place:
    """Returns a dataset's namespace and name from one of OpenLineage's naming classes."""
    return Place(named.get_namespace(), named.get_name())


def landing_file(dataset: Dataset, day: date) -> Place:
    """Returns the lineage name of a landing file."""
    return place_of(LocalFileSystem(str(landing.landing_path(dataset, day))))


def bronze_object(dataset: Dataset, day: date) -> Place:
    """Returns the lineage name of the bronze object that holds a landing file's bytes."""
    return place_of(S3(settings.get("MINIO_BUCKET_BRONZE"), lake_paths.bronze_key(dataset, day)))


def silver_table(dataset: Dataset, kind: str = "accepted") -> Place:
    """Returns the lineage name of a silver Delta table; `kind` is accepted or rejected."""
    bucket, _, key = lake_paths.silver_path(dataset, kind).removeprefix("s3a://").partition("/")
    return place_of(S3(bucket, key))


def table(name: str) -> Place:
    """Returns the lineage name of a PostgreSQL table; `name` includes the schema unless it is public."""
    space, _, short = name.rpartition(".")
    host, port, database = (settings.get(f"POSTGRES_{word}") for word in ("HOST", "PORT", "DB"))
    return place_of(Postgres(host, port, database, space or "public", short))


# ---- datasets and facets -------------------------------------------------------------------------------------------


def read_from(
    place: Place,
    doc: str,
    kind: str,
    fields: Fields,
    size: Mapping[str, Any] | None = None,
    held: Sequence[data_quality_assertions_dataset.Assertion] = (),
    version: int | None = None,
) -> InputDataset:
    """Returns a dataset as an input of a run, with the data quality assertions about it.

    Its parameters are the facets of one dataset.
    """
    of_input: dict[str, Any] = {}
    if size:
        of_input["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(**size)
    if held:
        of_input["dataQualityAssertions"] = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet([*held])
    return InputDataset(place.namespace, place.name, of_input, facets=facets(place, doc, kind, fields, version))


def written_to(
    place: Place,
    doc: str,
    kind: str,
    fields: Fields,
    size: Mapping[str, Any],
    made: Made,
    indirect: Sequence[tuple[Place, str, str]] = (),
    version: int | None = None,
) -> OutputDataset:
    """Returns a dataset as an output of a run, with its column lineage.

    `made` lists the source columns of each column; `indirect` lists the columns that decide which rows there are.

    Its parameters are the facets of one dataset.
    """
    own = facets(place, doc, kind, fields, version)
    if made:
        own["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            {
                column: column_lineage_dataset.Fields([input_field(*source, "DIRECT") for source in sources])
                for column, sources in made.items()
                if sources
            },
            [input_field(*source, "INDIRECT") for source in indirect],
        )
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    return OutputDataset(
        place.namespace, place.name, {"outputStatistics": statistics(**size)} if size else {}, facets=own
    )


def input_field(place: Place, column: str, how: str, kind: str) -> column_lineage_dataset.InputField:
    """Returns a source column: one that another column is computed from, or that decides which rows there are."""
    change = column_lineage_dataset.Transformation(kind, how)
    return column_lineage_dataset.InputField(place.namespace, place.name, column, [change])


def facets(place: Place, doc: str, kind: str, fields: Fields, version: int | None) -> dict[str, Any]:
    """Returns the facets that a dataset has as input and as output: type, documentation, schema, version, storage."""
    told: dict[str, Any] = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(kind)}
    if doc:
        told["documentation"] = documentation_dataset.DocumentationDatasetFacet(doc)
    if fields:
        named = [
            schema_dataset.SchemaDatasetFacetFields(name, type, text or None, number)
            for number, (name, type, text) in enumerate(fields, 1)
        ]
        told["schema"] = schema_dataset.SchemaDatasetFacet(named)
    if version is not None:
        told["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(str(version))
    if place.namespace.startswith("s3:") and kind == "TABLE":
        told["storage"] = storage_dataset.StorageDatasetFacet("delta", "parquet")
    return told


def assertions(dataset: Dataset, row: Row | None) -> list[data_quality_assertions_dataset.Assertion]:
    """Returns one assertion per rule of a dataset that the run checked, with the number of rows that broke it."""
    found = rows("select reason, hits from ops.reasons where run_id = %s", row["run_id"]) if row else []
    hits = {each["reason"]: each["hits"] for each in found}
    return [
        data_quality_assertions_dataset.Assertion(
            code,
            hits[code] == 0,
            column=dataset.blamed[code],
            severity="error" if dataset.limits[code].stop else "warn",
            name=code,
            description=text,
            expected="0",
            actual=str(hits[code]),
        )
        for code, text in dataset.reasons.items()
        if code in hits
    ]


def assertion(name: str, holds: bool) -> data_quality_assertions_dataset.Assertion:
    """Returns an assertion about a dataset as a whole."""
    return data_quality_assertions_dataset.Assertion(name, holds, severity="error", name=name)
