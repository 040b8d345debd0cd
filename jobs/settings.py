"""The platform's settings: the environment, then `.env`, then `.env.example`. No other module reads them."""

import os
from functools import cache
from pathlib import Path

from dotenv import load_dotenv

ROOT = Path(__file__).resolve().parent.parent


@cache  # the files are read once per process: a connection asks for five settings
def load() -> None:
    """Fills the environment with what it lacks, so that a variable set there beats both files."""
    for name in (".env", ".env.example"):
        load_dotenv(ROOT / name, override=False)


def given(name: str) -> str:
    """The text of a setting that may be empty."""
    load()
    return os.environ.get(name, "")


def get(name: str) -> str:
    """The text of one setting; a KeyError-free lookup that exits with a sentence when there is none."""
    value = given(name)
    if not value:
        raise SystemExit(f"The setting {name} is empty: set it in .env or in the environment.")
    return value


def path(name: str) -> Path:
    """A setting that is a directory; relative ones are taken from the root of the clone."""
    return (ROOT / Path(get(name)).expanduser()).resolve()


def s3_endpoint() -> str:
    """MINIO_ENDPOINT as a URL; plain http where it names no scheme."""
    endpoint = get("MINIO_ENDPOINT")
    return endpoint if "://" in endpoint else f"http://{endpoint}"
