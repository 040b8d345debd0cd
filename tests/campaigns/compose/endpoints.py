"""Calls every address that the containers publish, and fails if one does not answer: `make endpoints`."""

import socket
import sys
from collections.abc import Callable
from functools import partial
from urllib.request import urlopen

from jobs import object_store, settings, warehouse

HERE = "127.0.0.1"


def page(setting: str, path: str = "/") -> Callable[[], object]:
    """Returns a function that fetches a page at the port in a setting, or at the setting's URL."""
    place = settings.get(setting)
    return partial(urlopen, f"{place if '://' in place else f'http://{HERE}:{place}'}{path}", timeout=10)


def endpoints() -> dict[str, Callable[[], object]]:
    """Returns a check of each endpoint; Metabase's only if the profile bi is in COMPOSE_PROFILES."""
    found = {
        "PostgreSQL": lambda: warehouse.connect().close(),
        "MinIO": lambda: object_store.s3().list_buckets(),
        "MinIO's console": page("MINIO_CONSOLE_PORT"),
        "MinIO's metrics": page("MINIO_ENDPOINT", "/minio/v2/metrics/cluster"),
        "Spark's master": page("SPARK_MASTER_WEBUI_PORT"),
        "Spark's metrics": page("SPARK_MASTER_WEBUI_PORT", "/metrics/master/prometheus/"),
        "Spark Connect": lambda: socket.create_connection((HERE, int(settings.get("SPARK_CONNECT_PORT"))), 10).close(),
        "Spark's history": page("SPARK_HISTORY_PORT", "/api/v1/applications"),
        "Luigi": page("LUIGI_PORT", "/static/visualiser/index.html"),
        "Luigi's metrics": page("LUIGI_PORT", "/metrics"),
        "dashboards": page("DASHBOARDS_PORT", "/index.html"),
    }
    if "bi" in settings.get("COMPOSE_PROFILES").split(","):
        found["Metabase"] = page("METABASE_URL", "/api/health")
    return found


def main() -> int:
    failed = 0
    for name, ask in endpoints().items():
        try:
            ask()
            print(f"{name:<18}answers")
        except Exception as error:
            failed += 1
            print(f"{name:<18}does not answer ({type(error).__name__}); see `docker compose ps` and its log")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
