"""Defines the core of OpenLineage as a JSON schema, written from the public specification (2-0-2), for the tests."""

from typing import Any

URI = {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*:\S+$"}
MOMENT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}
UUID = {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"}
TEXT = {"type": "string", "minLength": 1}
NUMBER = {"type": "integer", "minimum": 0}


def mapping(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Returns a schema of an object with these properties and whatever others."""
    return {"type": "object", "required": [*required], "properties": {**required, **optional}}


def facets(**named: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema of facets, each of which says who made it and by which schema."""
    every = mapping({"_producer": URI, "_schemaURL": URI})
    known = {name: {"allOf": [every, schema]} for name, schema in named.items()}
    return {"type": "object", "properties": known, "additionalProperties": every}


STATISTICS = mapping({}, rowCount=NUMBER, size=NUMBER, fileCount=NUMBER)
INPUT_FIELD = mapping(
    {"namespace": TEXT, "name": TEXT, "field": TEXT},
    transformations={"type": "array", "items": mapping({"type": {"enum": ["DIRECT", "INDIRECT"]}})},
)
DATASET_FACETS = facets(
    schema=mapping({"fields": {"type": "array", "items": mapping({"name": TEXT}, type=TEXT, description=TEXT)}}),
    version=mapping({"datasetVersion": TEXT}),
    storage=mapping({"storageLayer": TEXT}, fileFormat=TEXT),
    documentation=mapping({"description": TEXT}),
    datasetType=mapping({"datasetType": TEXT}),
    columnLineage=mapping(
        {
            "fields": {
                "type": "object",
                "additionalProperties": mapping({"inputFields": {"type": "array", "items": INPUT_FIELD}}),
            }
        },
        dataset={"type": "array", "items": INPUT_FIELD},
    ),
)
ASSERTION = mapping({"assertion": TEXT, "success": {"type": "boolean"}}, column=TEXT, severity=TEXT)
DATASET = {"namespace": TEXT, "name": TEXT}
INPUT = mapping(
    DATASET,
    facets=DATASET_FACETS,
    inputFacets=facets(
        inputStatistics=STATISTICS,
        dataQualityAssertions=mapping({"assertions": {"type": "array", "minItems": 1, "items": ASSERTION}}),
    ),
)
OUTPUT = mapping(DATASET, facets=DATASET_FACETS, outputFacets=facets(outputStatistics=STATISTICS))
RUN_FACETS = facets(
    nominalTime=mapping({"nominalStartTime": MOMENT}, nominalEndTime=MOMENT),
    errorMessage=mapping({"message": TEXT, "programmingLanguage": TEXT}),
    processing_engine=mapping({"version": TEXT}, name=TEXT),
)
JOB_FACETS = facets(
    jobType=mapping({"processingType": {"enum": ["BATCH", "STREAMING", "SERVICE"]}, "integration": TEXT}),
    documentation=mapping({"description": TEXT}),
)
STATES = ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]

RUN_EVENT = mapping(
    {
        "eventTime": MOMENT,
        "producer": URI,
        "schemaURL": {**URI, "pattern": r"^https://openlineage\.io/spec/2-0-2/OpenLineage\.json#/\$defs/RunEvent$"},
        "run": mapping({"runId": UUID}, facets=RUN_FACETS),
        "job": mapping({"namespace": TEXT, "name": TEXT}, facets=JOB_FACETS),
    },
    eventType={"enum": STATES},
    inputs={"type": "array", "items": INPUT},
    outputs={"type": "array", "items": OUTPUT},
)
