"""Stages silver rows in PostgreSQL and loads them into gold by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jobs import ledger, settings, warehouse
from jobs.catalog import CATALOG, relatives
from jobs.dataset import Dataset
from jobs.program import Refused
from jobs.warehouse import Connection

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

AUDIT = ("_partition_date", "_run_id")
GONE_KEYS = ("dataset", "_partition_date", "run_id", "row_key")
GONE_SINCE = (
    "select row_key from ops.gone_keys where dataset = %(dataset)s and _partition_date = any(%(places)s) "
    "and run_id = any(%(runs)s)"
)
WITHHELD = ("dataset", "_partition_date", "row_key", "visit_id", "row_day", "department", "amount", "reasons")


def hash_of(names: Sequence[str]) -> str:
    """Returns SQL for a 64-bit hash of a row. A server of another version may hash differently, which costs a load."""
    return f"hash_record_extended(row({', '.join(names)}), 0)"


def checksums(connection: Connection, dataset: Dataset, day: date) -> list[Decimal]:
    """Returns four numbers that are equal for equal rows of a partition in gold, and find rows changed by hand.

    These are the number of rows and the sum of their hashes, in the table and among the withheld rows.
    """
    found: list[Decimal] = []
    for table, names, where in (
        (dataset.name, dataset.names, ""),
        ("ops.withheld", WITHHELD, f" and dataset = {warehouse.literal(dataset.name)}"),
    ):
        [numbers] = connection.execute(
            f"select count(*)::numeric, coalesce(sum({hash_of(names)}), 0) from {table} "
            f"where _partition_date = %s{where}",
            [day],
        ).fetchmany(1)
        found += numbers
    return found


def sums(connection: Connection, dataset: Dataset, day: date) -> list[Decimal] | None:
    """Returns the checksums that gold should have for a partition by all loads so far; None if no load noted them."""
    found = connection.execute(
        "select sums from ops.receipts where layer = 'gold' and dataset = %s and partition_date = %s",
        [dataset.name, day],
    ).fetchone()
    return found[0] if found else None


def set_sums(connection: Connection, dataset: Dataset, day: date, numbers: Sequence[Decimal]) -> None:
    """Notes the checksums that gold should have for a partition, once it has a marker."""
    connection.execute(
        "update ops.receipts set sums = %s::numeric[] where layer = 'gold' and dataset = %s and partition_date = %s",
        [[*numbers], dataset.name, day],
    )


def drop_sums(connection: Connection, dataset: Dataset, days: Sequence[date]) -> None:
    """Forgets the checksums of partitions, so that the next load of each is one of all its rows."""
    connection.execute(
        "update ops.receipts set sums = null where layer = 'gold' and dataset = %s and partition_date = any(%s)",
        [dataset.name, [*days]],
    )


def bring_forward(
    connection: Connection, dataset: Dataset, moved: Iterable[tuple[date, int, Decimal]], withheld: bool = False
) -> None:
    """Adds the number and the hashes of rows that came to partitions, negative if they went, to their checksums."""
    place = 3 if withheld else 1
    with connection.cursor() as cursor:
        cursor.executemany(
            f"update ops.receipts set sums[{place}] = sums[{place}] + %s, sums[{place + 1}] = sums[{place + 1}] + %s "
            "where layer = 'gold' and dataset = %s and partition_date = %s and sums is not null",
            [(rows, hashes, dataset.name, day) for day, rows, hashes in moved],
        )


def loaded(connection: Connection, dataset: Dataset, day: date, silver_run: str) -> str | None:
    """Returns the current gold run of a partition if it loaded a silver run and its rows are unchanged; or None."""
    found = connection.execute(
        "select run_id, sums from ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date) "
        "where layer = 'gold' and dataset = %s and partition_date = %s and made_from = %s",
        [dataset.name, day, silver_run],
    ).fetchone()
    return found[0] if found and found[1] == checksums(connection, dataset, day) else None


def made_from(connection: Connection, dataset: Dataset, day: date) -> str | None:
    """Returns the silver run of which gold has the rows of a partition; None if it must be loaded whole."""
    found = connection.execute(
        "select made_from from ops.receipts where layer = 'gold' and dataset = %s and partition_date = %s "
        "and sums is not null",
        [dataset.name, day],
    ).fetchone()
    return found[0] if found else None


def loaded_alike(connection: Connection, row: dict[str, Any], numbers: Sequence[Decimal]) -> str | None:
    """Returns the current gold run of the partition of `row` if it left rows with these checksums; or None."""
    found = connection.execute(
        "select run_id from ops.receipts join ops.ledger using (run_id, layer, dataset, partition_date) "
        "where layer = 'gold' and dataset = %s and partition_date = %s and sums = %s::numeric[]",
        [row["dataset"], row["partition_date"], [*numbers]],
    ).fetchone()
    return found[0] if found else None


def staging(name: str, run_id: str) -> str:
    """Returns the name of a load's own staging table: Spark may still write for a load that died."""
    return f"staging.{name}_{run_id.rpartition('-')[2]}"


def lost(dataset: Dataset, run_id: str) -> str:
    """Returns the name of the staging table of the keys that a dataset may lose in a load."""
    return staging(f"lost_{dataset.name}", run_id)


def jdbc(table: str) -> dict[str, str]:
    """Returns the options of Spark's JDBC source for a table of the warehouse.

    The driver reads the password from PGPASSFILE, because Spark Connect writes options to its event log. The driver
    leaves row values out of its errors, and has the same settings for TLS and authentication as psycopg.
    """
    place = f"{settings.get('POSTGRES_HOST')}:{settings.get('POSTGRES_PORT')}/{settings.get('POSTGRES_DB')}"
    checks = {"requireAuth": settings.required_auth()}
    checks |= {"sslmode": settings.given("PGSSLMODE"), "sslrootcert": settings.given("PGSSLROOTCERT")}
    return {
        "url": f"jdbc:postgresql://{place}?user={quote(settings.get('POSTGRES_USER'))}"
        + "".join(f"&{name}={quote(value)}" for name, value in checks.items() if value)
        + "&reWriteBatchedInserts=true&logServerErrorDetail=false&stringtype=unspecified",
        "driver": "org.postgresql.Driver",
        "dbtable": table,
        "batchsize": "1024",  # of 10,000 rows each, a load takes longer
    }


def drop_staging(connection: Connection) -> None:
    """Drops all staging tables, also those of loads that died, and ends the sessions that still write there."""
    with connection.transaction():  # one commit, which waits for the disk, instead of one for each table
        connection.execute(
            "select pg_terminate_backend(pid) from pg_locks join pg_class on pg_class.oid = relation "
            "join pg_stat_activity using (pid) where relnamespace = 'staging'::regnamespace "
            "and usename = current_user and pid <> pg_backend_pid()"
        )
        tables = connection.execute("select quote_ident(tablename) from pg_tables where schemaname = 'staging'")
        if names := [f"staging.{table}" for (table,) in tables.fetchall()]:
            connection.execute(f"drop table {', '.join(names)}")


def create_staging(connection: Connection, run_id: str, silver: Mapping[str, Any] | None = None) -> None:
    """Creates empty staging tables for every dataset and for the keys it may lose.

    Rows without a partition and a run get those of the run `silver`.
    """
    of_run = {"_partition_date": silver["partition_date"], "_run_id": silver["run_id"]} if silver else {}
    defaults = ", ".join(f"alter {name} set default {warehouse.literal(str(each))}" for name, each in of_run.items())
    withheld = staging("withheld", run_id)
    with connection.transaction():  # one commit, as in drop_staging
        for dataset in CATALOG.values():
            rows, keys = staging(dataset.name, run_id), lost(dataset, run_id)
            for table, columns in ((rows, ", ".join([*dataset.names, *AUDIT])), (keys, dataset.key)):
                connection.execute(
                    f"create unlogged table {table} as select {columns} from {dataset.name} with no data"
                )
            if defaults:
                connection.execute(f"alter table {rows} {defaults}")
        connection.execute(f"create unlogged table {withheld} as select * from ops.withheld with no data")
        connection.execute(f"alter table {withheld} drop column id")


def stage(rows: DataFrame, dataset: Dataset, run_id: str, of_runs: bool = False) -> None:
    """Appends silver rows to their staging table over JDBC, with partition and run if they are of several runs."""
    names = (*dataset.names, *(AUDIT if of_runs else ()))
    days = [column.name for column in dataset.columns if column.type in ("date", "timestamp")]
    append(rows.select(*names), staging(dataset.name, run_id), days)


def must_be_staged(
    connection: Connection, dataset: Dataset, wanted: Mapping[date, tuple[int, int]], run_id: str
) -> None:
    """Raises Refused unless every wanted row is staged once; a dead executor may have written twice.

    `wanted` holds the numbers of accepted and rejected rows of each partition.
    """
    for place, (kind, table) in enumerate({"accepted": dataset.name, "rejected": "withheld"}.items()):
        found = connection.execute(f"select _partition_date, count(*) from {staging(table, run_id)} group by 1")
        staged = dict(found.fetchall())
        for day, numbers in wanted.items():
            if (rows := staged.get(day, 0)) != numbers[place]:
                raise Refused(
                    f"{numbers[place]:,} rows of {dataset.name} {day} were {kind} but {rows:,} staged; nothing was "
                    "published; run the date again."
                )


def append(rows: DataFrame, table: str, days: Sequence[str] = ()) -> None:
    """Appends rows over JDBC; sends the columns `days` as texts.

    java.sql has no dates from 5 to 14 October 1582 and would change them.
    """
    from pyspark.sql import functions as F

    texts = {name: F.col(name).cast("string") for name in days}
    rows = rows.withColumns(texts) if texts else rows
    rows.write.format("jdbc").options(**jdbc(table)).mode("append").save()


def read_keys(spark: SparkSession, table: str) -> DataFrame:
    """Reads a staging table of keys as a DataFrame of one column."""
    return spark.read.format("jdbc").options(**jdbc(table)).load()


def of_gone_keys(dataset: Dataset, since: Mapping[date, Sequence[str]]) -> dict[str, Any]:
    """Returns the parameters of GONE_SINCE: the partitions in `since` and the silver runs of each."""
    return {"dataset": dataset.name, "places": [*since], "runs": [run for runs in since.values() for run in runs]}


def find_lost(
    connection: Connection, dataset: Dataset, days: Sequence[date], since: Mapping[date, Sequence[str]], run_id: str
) -> list[Dataset]:
    """Fills the tables `lost` with keys that partitions had in gold and no longer have, and with dependent keys.

    Of the partitions in `since`, only the rows that its silver runs wrote are staged. A key that they accepted and no
    longer accept is among the withheld rows that are staged, or, if its record has left the file, in ops.gone_keys.
    Returns the datasets that lose keys, parents first.
    """
    staged, withheld = staging(dataset.name, run_id), staging("withheld", run_id)
    connection.execute(f"analyze {staged}")
    for places, where in (
        ([day for day in days if day not in since], ""),
        (
            [*since],
            f" and g.{dataset.key} in (select row_key from {withheld} as w where w._partition_date = any(%(places)s) "
            f"union all {GONE_SINCE})",
        ),
    ):
        connection.execute(
            f"insert into {lost(dataset, run_id)} select g.{dataset.key} from {dataset.name} as g "
            f"where g._partition_date = any(%(places)s){where} and not exists (select from {staged} as s "
            f"where s.{dataset.key} = g.{dataset.key} and s._partition_date = g._partition_date)",
            of_gone_keys(dataset, since) | {"places": places},
        )
    losing = []
    for loser in CATALOG.values():
        for name, parent in loser.parents.items():
            if CATALOG[parent] in losing:
                connection.execute(
                    f"insert into {lost(loser, run_id)} select c.{loser.key} from {loser.name} as c "
                    f"join {lost(CATALOG[parent], run_id)} as p on p.{CATALOG[parent].key} = c.{name}"
                )
        if connection.execute(f"select 1 from {lost(loser, run_id)} limit 1").fetchone():
            losing.append(loser)
    return losing


def find_missing(connection: Connection, dataset: Dataset, name: str, run_id: str) -> str | None:
    """Creates a table of staged foreign keys whose parents are neither in gold nor staged; None if there are none."""
    parent = CATALOG[dataset.parents[name]]
    missing = (
        f"from {staging(dataset.name, run_id)} as s "
        f"where not exists (select from {parent.name} as p where p.{parent.key} = s.{name}) "
        f"and not exists (select from {staging(parent.name, run_id)} as p where p.{parent.key} = s.{name})"
    )
    if not connection.execute(f"select 1 {missing} limit 1").fetchone():
        return None
    table = staging(f"missing_{parent.name}", run_id)
    connection.execute(f"drop table if exists {table}")
    connection.execute(f"create unlogged table {table} as select distinct s.{name} as {parent.key} {missing}")
    return table


def load(
    connection: Connection, dataset: Dataset, choosing: bool, run_id: str, restating: bool = False
) -> dict[date, dict[str, Any]]:
    """Updates a gold table from its staging table in the caller's transaction; returns counts and money by partition.

    Of each key, the staged version of the newest partition is loaded if its parents are in gold; `choosing` is false if
    there is one version of each key and its parents are in gold. An older partition never replaces a newer one, unless
    the newer version is among the `lost`. Equal rows are not touched. The checksums of partitions are brought forward;
    if the load is of another dataset (`restating`), those of partitions that lose rows are dropped. Such rows left with
    their parents, and silver may still accept them when the parents are back: the partition must be loaded whole.

    Long because the statements of one load belong together: each reads what the one before it left.
    """
    key, names = dataset.key, dataset.names
    standing, going = f"{dataset.name}_standing", lost(dataset, run_id)
    with_parents = "".join(
        f" and exists (select from {parent} as p where p.{CATALOG[parent].key} = s.{name})"
        for name, parent in dataset.parents.items()
    )
    if choosing:
        connection.execute(
            f"create temp table {standing} on commit drop as select distinct on ({key}) * "
            f"from {staging(dataset.name, run_id)} as s where true{with_parents} order by {key}, _partition_date desc"
        )
        connection.execute(f"analyze {standing}")
    else:
        standing = staging(dataset.name, run_id)
    columns = ", ".join([*names, *AUDIT])
    content = [*names[1:], "_partition_date"]
    differs = f"({', '.join(f'g.{n}' for n in content)}) is distinct from ({', '.join(f's.{n}' for n in content)})"
    is_lost = f"exists (select from {going} as l where l.{key} = g.{key})"
    amount = dataset.amount or "null::numeric"
    # The checksums of a partition that is loaded whole are computed from all its rows afterwards.
    hashed = hash_of([f"g.{name}" for name in names]) if choosing else "0"

    def sums(rows: str, amount: str = "amount", sign: int = 0) -> dict[date, tuple[int, Any]]:
        """Returns the number of rows of a query and their money, by partition; adds them to checksums if signed."""
        found = connection.execute(
            f"with done as ({rows}) select _partition_date, count(*), coalesce(sum({amount}), 0), "
            f"{'sum(hash)' if sign else 0} from done group by 1"
        ).fetchall()
        if sign < 0 and restating:
            drop_sums(connection, dataset, [day for day, *_ in found])
        elif sign:
            bring_forward(connection, dataset, [(day, sign * rows, sign * hashes) for day, rows, _, hashes in found])
        return {day: (count, money) for day, count, money, _ in found}

    staged = sums(f"select _partition_date from {standing}", "0")
    rows = sum(count for count, _ in staged.values())
    # Restating moves rows between tables whose keys must hold together only at the end: those keys stay, and wait.
    with nullcontext() if choosing else without_keys(connection, dataset, rows):
        connection.execute(
            f"create temp table changed as select s.*, {f'g.{amount}' if dataset.amount else amount} "
            f"as amount_before, g._partition_date as day_before, "
            f"{hash_of([f'g.{name}' for name in names])} as hash_before "
            f"from {standing} as s join {dataset.name} as g using ({key}) "
            f"where (s._partition_date >= g._partition_date or {is_lost}) and {differs}"
        )
        updated = sums(
            f"select *, {hash_of(names)} as hash from changed",
            f"coalesce({amount}, 0) - coalesce(amount_before, 0)",
            sign=1,
        )
        if updated:
            sums("select day_before as _partition_date, hash_before as hash from changed", "0", sign=-1)
            connection.execute("analyze changed")
            connection.execute(
                f"update {dataset.name} as g set {', '.join(f'{n} = s.{n}' for n in [*content, '_run_id'])}, "
                f"_loaded_at = clock_timestamp() from changed as s where g.{key} = s.{key}"
            )
        connection.execute("drop table changed")
        inserted = sums(
            f"insert into {dataset.name} as g ({columns}) select {columns} from {standing} as s "
            f"where not exists (select from {dataset.name} as known where known.{key} = s.{key}) "
            f"returning _partition_date, {amount} as amount, {hashed} as hash",
            sign=1,
        )
        removed = sums(
            f"delete from {dataset.name} as g using {going} as l where l.{key} = g.{key} "
            f"and not exists (select from {standing} as s where s.{key} = g.{key}) "
            f"returning _partition_date, {amount} as amount, {hashed} as hash",
            sign=-1,
        )
    return counts_by_day(dataset, {"staged": staged, "inserted": inserted, "updated": updated, "removed": removed})


def counts_by_day(dataset: Dataset, sums: Mapping[str, Mapping[date, tuple[int, Any]]]) -> dict[date, dict[str, Any]]:
    """Returns the counts and the money of a load by partition, from the rows and money of each of its statements."""
    done: dict[date, dict[str, Any]] = {}
    for day in sums["staged"].keys() | sums["removed"].keys():
        counts = {name: found.get(day, (0, 0))[0] for name, found in sums.items()}
        inserted, updated, removed = (sums[name].get(day, (0, 0))[1] for name in ("inserted", "updated", "removed"))
        done[day] = counts | {
            "unchanged": counts["staged"] - counts["inserted"] - counts["updated"],
            "amount_change": updated + inserted - removed if dataset.amount else None,
        }
    return done


def together(dataset: Dataset, counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up the counts and the money of several partitions of a dataset."""
    words = ["staged", "inserted", "updated", "unchanged", "removed", *(["amount_change"] if dataset.amount else [])]
    counts = list(counts)
    return {"amount_change": None} | {word: sum(each[word] for each in counts) for word in words}


MANY = 100_000  # rows


def is_large(rows: int, there: int) -> bool:
    """Tells whether it is quicker to build keys after a load of `rows` rows into a table of `there` rows."""
    return rows >= MANY and there <= rows // 10


@contextmanager
def without_keys(connection: Connection, dataset: Dataset, rows: int) -> Iterator[None]:
    """Drops keys and indexes of a nearly empty table before a load of `rows` rows, and builds them afterwards.

    Updating them row by row costs more than the rows themselves. Triggers that note touched rows are disabled too.
    Readers wait until the caller commits, which is why tables in use are loaded with their keys.
    """
    there = warehouse.value(
        connection, f"select count(*) from (select from {dataset.name} limit {rows // 10 + 1}) as known"
    )
    if not is_large(rows, there):
        yield
        return
    near = relatives(dataset)
    # Marts lock tables in this order too; in another order, a load and the marts could wait for each other.
    connection.execute(f"lock table {', '.join(name for name in CATALOG if name in near)} in access exclusive mode")
    keys = connection.execute(
        "select conrelid::regclass, quote_ident(conname), pg_get_constraintdef(oid) from pg_constraint "
        "where %s::regclass in (conrelid, confrelid) and contype in ('f', 'p') order by contype",
        [dataset.name],
    ).fetchall()
    indexes = connection.execute(
        "select indexrelid::regclass, pg_get_indexdef(indexrelid) from pg_index "
        "where indrelid = %s::regclass and not indisprimary",
        [dataset.name],
    ).fetchall()
    for table, name, _ in keys:
        connection.execute(f"alter table {table} drop constraint {name}")
    for name, _ in indexes:
        connection.execute(f"drop index {name}")
    connection.execute(f"alter table {dataset.name} disable trigger user")
    connection.execute("insert into ops.touched values (null, null)")
    if not there:
        connection.execute(f"truncate {dataset.name}")  # what a transaction begins with an empty file needs no log
    yield
    for table, name, definition in reversed(keys):
        connection.execute(f"alter table {table} add constraint {name} {definition}")
    for _, definition in indexes:
        connection.execute(definition)
    connection.execute(f"alter table {dataset.name} enable trigger user")
    connection.execute(f"analyze {dataset.name}")


def account_for(connection: Connection, day: date) -> list[str]:
    """Records in the ledger the rows and money that gold gained or lost without a load; returns a warning per table."""
    warnings = []
    for dataset, rows, amount in connection.execute("select * from ops.unaccounted").fetchall():
        with ledger.run(connection, "gold", dataset, day, CATALOG[dataset].rule_set) as row:
            row |= {"inserted": max(rows, 0), "removed": max(-rows, 0), "amount_change": amount}
            ledger.note(connection, row | {"outcome": "unaccounted"})
        money = f" and {amount:+,.2f} of {CATALOG[dataset].amount}" if amount else ""
        warnings.append(
            f"warn: gold {dataset}: {rows:+,} rows{money} by no load: somebody changed it by hand. "
            "The ledger has it now; run the dates again with FORCE=1 to bring gold back in line with silver."
        )
    return warnings


def replace_withheld(
    connection: Connection, dataset: Dataset, days: Sequence[date], since: Mapping[date, Sequence[str]], run_id: str
) -> None:
    """Replaces the rows of partitions in ops.withheld by the staged ones, in the caller's transaction.

    Of the partitions in `since`, only the rows that its silver runs wrote are staged: rows are replaced if their key is
    staged or has left the file, or if they have none. Deletes the partitions' rows in ops.gone_keys.
    """
    withheld = staging("withheld", run_id)
    names = ", ".join(WITHHELD)
    changes = (
        f"delete from ops.withheld where dataset = {warehouse.literal(dataset.name)} "
        "and _partition_date = any(%(days)s) and (_partition_date <> all(%(places)s) or row_key is null "
        f"or (row_key, _partition_date) in (select {dataset.key}, _partition_date from "
        f"{staging(dataset.name, run_id)} union all select row_key, _partition_date from {withheld}) "
        f"or row_key in ({GONE_SINCE}))",
        f"insert into ops.withheld ({names}) select {names} from {withheld}",
    )
    for sign, change in zip((-1, 1), changes, strict=True):
        found = connection.execute(
            f"with done as ({change} returning _partition_date, {hash_of(WITHHELD)} as hash) "
            "select _partition_date, count(*), sum(hash) from done group by 1",
            of_gone_keys(dataset, since) | {"days": [*days]},
        ).fetchall()
        bring_forward(
            connection, dataset, [(day, sign * rows, sign * sum_) for day, rows, sum_ in found], withheld=True
        )
    connection.execute(
        "delete from ops.gone_keys where dataset = %s and _partition_date = any(%s)", [dataset.name, [*days]]
    )
