"""Summarises the warehouse: rows per table, rejected rows per reason, revenue, and where to look."""

from jobs import marts, settings, warehouse
from jobs.catalog import CATALOG


def summary() -> str:
    """Returns the rows of every gold table and mart, rejected rows per dataset and reason, and addresses."""
    with warehouse.connect() as connection:
        trust = connection.execute(
            "select sum(revenue), sum(revenue_withheld), sum(revenue_unknown) from ops.mart_trust "
            "where department = '*'"
        ).fetchmany(1)[0]
        lines = ["Rows"]
        for table in [*CATALOG, *sorted(name for name in marts.selects() if name.startswith("mart_"))]:
            rows = warehouse.value(connection, f"select count(*) from {table}")
            lines.append(f"  {table:<24}{rows:>12,}")
        lines.append("Rejected, all dates")
        for dataset in CATALOG:
            found = connection.execute(
                "select reason, sum(hits) from ops.reasons natural join ops.receipts "
                "where layer = 'silver' and dataset = %s and hits > 0 group by reason order by 2 desc, 1",
                [dataset],
            )
            lines += [f"  {dataset:<12}{reason:<28}{hits:>8,}" for reason, hits in found]
    if trust[0]:
        share = 100 * trust[0] / (trust[0] + trust[1])
        lines += [
            "Revenue in the marts, and what was withheld from them",
            f"  {'counted':<24}{trust[0]:>16,.2f}  ({share:.2f} % of what could be read)",
            f"  {'withheld':<24}{trust[1]:>16,.2f}  (and {trust[2]:,} bills whose amount cannot be relied on)",
        ]
    lines.append("Look at")
    places = {
        "Luigi": f"http://127.0.0.1:{settings.get('LUIGI_PORT')}",
        "Spark master": f"http://127.0.0.1:{settings.get('SPARK_MASTER_WEBUI_PORT')}",
        "Spark history": f"http://127.0.0.1:{settings.get('SPARK_HISTORY_PORT')}/?showIncomplete=true",
        "MinIO console": f"http://127.0.0.1:{settings.get('MINIO_CONSOLE_PORT')}",
        "PostgreSQL": f"{settings.get('POSTGRES_HOST')}:{settings.get('POSTGRES_PORT')}/{settings.get('POSTGRES_DB')}",
        "Dashboards": f"http://127.0.0.1:{settings.get('DASHBOARDS_PORT')}",
    }
    return "\n".join([*lines, *(f"  {name:<16}{place}" for name, place in places.items())])
