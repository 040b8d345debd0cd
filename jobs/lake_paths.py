"""Names the places of bronze's files and silver's tables on the object store."""

from datetime import date

from jobs import settings
from jobs.dataset import Dataset
from jobs.landing import folder


def bronze_key(dataset: Dataset, day: date) -> str:
    """Returns the key of a bronze file in its bucket."""
    return f"{dataset.name}/{folder(day)}/{dataset.name}.csv"


def bronze_path(dataset: Dataset, day: date) -> str:
    """Returns the s3a path of a bronze file."""
    return f"s3a://{settings.get('MINIO_BUCKET_BRONZE')}/{bronze_key(dataset, day)}"


def silver_path(dataset: Dataset, kind: str) -> str:
    """Returns the s3a path of a silver table; `kind` is `accepted` or `rejected`."""
    folder = dataset.name if kind == "accepted" else f"rejected/{dataset.name}"
    return f"s3a://{settings.get('MINIO_BUCKET_SILVER')}/{folder}"


def log_prefix(dataset: Dataset, kind: str) -> str:
    """Returns the prefix of a Delta table's log in silver's bucket."""
    return silver_path(dataset, kind).removeprefix("s3a://").partition("/")[2] + "/_delta_log/"
