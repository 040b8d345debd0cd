"""Checks hostile files and command lines: every file balances or is refused in a sentence, and nothing else happens."""

import csv
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial, reduce

import pytest
from pyspark.sql import functions as F
from pyspark.sql.connect.dataframe import DataFrame

from jobs import (
    backtest,
    bronze_files,
    bronze_to_silver,
    delta_log,
    delta_tables,
    generate,
    gold_to_marts,
    lake_paths,
    landing,
    landing_to_bronze,
    program,
    reject_export,
    rejects,
    settings,
    silver_to_gold,
    spark_csv,
    validation,
)
from jobs.catalog import CATALOG
from pipelines import __main__ as pipelines
from stack import services
from tests.campaigns.test_laws import plant
from tests.flow.test_privacy import all_logged
from tests.flow.test_privacy import files as stack_files
from tests.support import hostile, model
from tests.support.examples import DAY, PARENTS, VALID, keys, records
from tests.support.history import MARTS, create_bucket, empty_warehouse, remove_bucket
from tests.support.hostile import MARK, NUMBERED

IN_FULL = "FILES" in os.environ
FILES = int(os.environ.get("FILES") or 500)
FEW = None if IN_FULL else 100  # number of files that Spark reads
takes_minutes = pytest.mark.skipif(not IN_FULL, reason="takes minutes: make test-hostile")
NAME = "2026/01/01/the-file.csv"
BATCH = 100  # number of files that Spark reads in one query


# ---- the plain reader against the model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files():
    """Returns (dataset, content) of the corpus and generated files; for few datasets if time is short."""
    datasets = tuple(CATALOG) if IN_FULL else ("patients", "billing")
    return [*hostile.corpus().values(), *hostile.generate(FILES, 1, datasets)]


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    """Returns the folder that has the files under their numbers."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, (_, content) in enumerate(files):
        (folder / f"{number}.csv").write_bytes(content)
    return folder


def expected(dataset, content):
    """Returns the model's reading of a file, or its Refusal."""
    try:
        return model.read_file(content, dataset)
    except model.Refusal as refusal:
        return refusal


def told(dataset, path):
    """Returns the profile of a file, or the sentence that refuses it."""
    try:
        return landing.describe(path, CATALOG[dataset], NAME)
    except program.Refused as refused:
        return str(refused)


def money_of(reading, dataset):
    """Returns (number of readable amounts of a file, their cents)."""
    if dataset not in model.AMOUNTS:
        return 0, 0
    place = reading.header.index(model.AMOUNTS[dataset])
    amounts = [model.money(record.fields[place].strip(model.BLANKS)) for record in reading.records if record.fields]
    return len(amounts) - amounts.count(None), sum(int(amount * 100) for amount in amounts if amount is not None)


def is_clear(sentence):
    """Tells whether a sentence is one printable line without a patient's value."""
    return sentence.isprintable() and len(sentence) < 400 and MARK not in sentence


def difference(dataset, content, path):
    """Describes how a file's profile differs from the model's; "" if it does not."""
    reading, facts = expected(dataset, content), told(dataset, path)
    if isinstance(facts, str):
        if isinstance(reading, model.Reading):
            return f"is refused, which it should not be: {facts}"
        if not facts.startswith(f"{NAME}") or not is_clear(facts) or not all(word in facts for word in reading.args):
            return f"is refused as {facts!r}, where {reading.args} should be said"
        return ""
    if not isinstance(reading, model.Reading):
        return f"is not refused, where {reading.args} should be said"
    found = (facts.header, facts.records, facts.spans, facts.amounts, facts.cents, facts.bytes, facts.sha256)
    wanted = (reading.header, len(reading.records), reading.spans, *money_of(reading, dataset))
    if found != (*wanted, len(content), hashlib.sha256(content).hexdigest()):
        return f"is described as {found}, where {wanted} is right"
    start = io.StringIO(content[: facts.header_bytes].decode("utf-8-sig"), newline="\n")
    record = next(record for record, _, _ in landing.read_records(start) if record.strip(model.BLANKS))
    again = landing.read_header(record, CATALOG[dataset], NAME)
    return "" if again == facts.header else f"has another header by its first bytes: {again}"


def differences(files, folder):
    return [
        f"{number} {dataset} {said}\n{content[:2000]!r}"
        for number, (dataset, content) in enumerate(files)
        if (said := difference(dataset, content, folder / f"{number}.csv"))
    ]


def test_every_file_is_described_or_refused_as_the_model_says(files, folder, say):
    assert differences(files, folder) == []
    refused = sum(isinstance(expected(*file), model.Refusal) for file in files)
    say(f"{len(files):,} hostile files: {refused:,} refused in a sentence, {len(files) - refused:,} described")
    assert refused > len(files) / 20


@pytest.mark.parametrize("name", hostile.large() if IN_FULL else ["a million column names", "a quote open over 20 MB"])
def test_a_file_of_megabytes_is_described_or_refused_as_the_model_says(name, tmp_path):
    dataset, make = hostile.large()[name]
    content = make()
    (tmp_path / "file.csv").write_bytes(content)
    assert difference(dataset, content, tmp_path / "file.csv") == ""


# (what is done wrong, the function, its line, the wrong line)
PLAIN_PLANTS = {
    "a trailing comma does not count": (
        landing.read_amount,
        'removesuffix("\\r"))',
        'removesuffix("\\r").removesuffix(","))',
    ),
    "a doubled quote ends a field": (landing.ends_open, "line.startswith(mark * 2, quote)", "False"),
    "a quote opens in the middle of a field": (
        landing.ends_open,
        "line.startswith(mark, place)",
        "mark in line[place:]",
    ),
    "a return ends a record": (landing.describe, 'newline="\\n"', 'newline=""'),
    "what is not UTF-8 is replaced": (landing.describe, "surrogateescape", "replace"),
    "a BOM stays": (landing.describe, "utf-8-sig", "utf-8"),
    "a blank line is a record": (landing.describe, "not record.strip(WHITE_SPACE)", 'record == "\\n"'),
    "a value is said in an error": (landing.describe, "UTF-8{seems};", "UTF-8{seems}: {record!r};"),
    "a NUL passes": (landing.read_amount, 'or "\\0" in record', ""),
    "names of columns come as they are": (landing.named_fields, "and is_legible(header[number])", ""),
    "columns without a name are one given twice": (landing.faults_of, "if name and name not in", "if name not in"),
    "semicolons are not told": (landing.read_header, "if separator in dialect.SEPARATORS:", "if False:"),
    "the first column that is lacking is told": (
        landing.faults_of,
        "if not times[column]]",
        "if not times[column]][:1]",
    ),
    "a header swallows rows": (
        landing.rows_in_header,
        "if dialect.quote and ends_open(text, dialect=dialect):",
        "if False:",
    ),
}


@pytest.mark.parametrize("wrong", PLAIN_PLANTS)
def test_a_bug_planted_in_the_plain_reading_is_found(files, folder, wrong, monkeypatch, say):
    plant(monkeypatch, *PLAIN_PLANTS[wrong])
    found = differences(files[:1000], folder)
    assert found
    say(f"{wrong}: found in {len(found):,} of {len(files[:1000]):,} files")


# ---- Spark's reader against the model --------------------------------------------------------------------------------


@contextmanager
def few_rows(spark):
    """Tunes the session for queries over few rows."""
    quickly = {
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    before = {name: spark.conf.get(name) for name in quickly}
    for name, setting in quickly.items():
        spark.conf.set(name, setting)
    yield
    for name, setting in before.items():
        spark.conf.set(name, setting)


@pytest.fixture
def quick(spark, folder, monkeypatch):
    """Yields a session tuned for few rows, which finds the files in their folder."""
    monkeypatch.setattr(lake_paths, "bronze_path", lambda dataset, number: f"file://{folder}/{number}.csv")
    with few_rows(spark):
        yield spark


def sound(files, folder):
    """Yields (number, dataset, reading, profile) of the files to validate."""
    for number, (dataset, content) in enumerate(files):
        reading = expected(dataset, content)
        if isinstance(reading, model.Reading):
            yield number, dataset, reading, landing.describe(folder / f"{number}.csv", CATALOG[dataset], NAME)


def read_by_spark(spark, files):
    """Returns the texts of each file's records by the file's number."""
    frames = [
        spark_csv.records(spark, CATALOG[dataset], number, facts).select(F.lit(number).alias("file"), "_raw")
        for number, dataset, _, facts in files
    ]
    while len(frames) > 1:
        pairs = itertools.zip_longest(frames[::2], frames[1::2])
        frames = [one if other is None else one.unionAll(other) for one, other in pairs]
    found = defaultdict(list)
    for number, raw in frames[0].collect():
        found[number].append(hostile.text_of(raw))
    return found


def misread(spark, files):
    """Lists the files whose records differ between Spark and the model."""
    found, files = [], list(files)
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        records = read_by_spark(spark, batch)
        for number, dataset, reading, _ in batch:
            wanted = [hostile.text_of(record.raw) for record in reading.records]
            if records[number] != wanted:
                found.append(f"{number} {dataset}: {records[number]} instead of {wanted}")
    return found


def misjudged(spark, files):
    """Lists wrong verdicts over all records with the same header, for each header."""
    groups, found = defaultdict(list), []
    for _, dataset, reading, _ in files:
        groups[dataset, reading.header].append(reading)
    most_first = sorted(groups.items(), key=lambda group: -sum(len(reading.records) for reading in group[1]))
    for (dataset, header), readings in most_first if IN_FULL else most_first[:2]:
        if len(readings) == 1 and len(readings[0].records) < 3:
            continue  # a random header
        accepted, rejected, amounts, differing = hostile.verdicts(readings, dataset)
        texts = [record.raw for reading in readings for record in reading.records]
        if not texts:
            continue
        parents = {
            column: keys(spark, CATALOG[parent].key, PARENTS[parent])
            for column, parent in CATALOG[dataset].parents.items()
        }
        validated = validation.validate(records(spark, texts), CATALOG[dataset], {DAY: header}, parents)
        [counts] = validation.count(validated, CATALOG[dataset], [DAY]).values()
        both = validation.split(validated, CATALOG[dataset], {DAY: header})
        found += differ(f"{dataset} {header} accepted", accepted, accepted_rows(both.accepted, dataset))
        found += differ(f"{dataset} {header} rejected", rejected, rejected_rows(both.rejected, dataset))
        money = counts.amount_accepted + counts.amount_rejected
        sums = counts.rows, counts.accepted, counts.differing, counts.amounts, money
        wanted = len(texts), accepted.total(), differing, len(amounts), sum(amounts)
        found += [] if sums == wanted else [f"{dataset} {header}: sums {sums} instead of {wanted}"]
    return found


def accepted_rows(rows, dataset):
    return Counter(map(tuple, rows.select(*(F.col(name).cast("string") for name in model.COLUMNS[dataset])).collect()))


def rejected_rows(rows, dataset):
    return Counter(
        (
            hostile.text_of(raw),
            reason,
            None if reason == "malformed_row" else tuple(source),
        )
        for raw, reason, *source in rows.select("_raw", "_reject_reason", *model.COLUMNS[dataset]).collect()
    )


def differ(what, wanted, found):
    """Returns a line for each surplus or missing row."""
    return [f"{what}: {n} x {row} lacking" for row, n in (wanted - found).items()] + [
        f"{what}: {n} x {row} too much" for row, n in (found - wanted).items()
    ]


def test_spark_finds_the_records_that_the_model_finds(files, folder, quick, say):
    whole = list(sound(files[:FEW], folder))
    assert misread(quick, whole) == []
    say(f"{len(whole):,} files, {sum(facts.records for *_, facts in whole):,} records: read by Spark as by the model")


def test_every_record_is_accepted_or_rejected_as_the_model_says(files, folder, quick, say):
    whole = list(sound(files[:FEW], folder))
    assert misjudged(quick, whole) == []
    say(f"{sum(facts.records for *_, facts in whole):,} records: verdicts, reasons, values and sums are the model's")


SPARK_PLANTS = {
    "a trailing comma does not count": (
        validation.split_fields,
        'F.split("_raw", separator',
        'F.split(F.rtrim("_raw", F.lit(",")), separator',
        misjudged,
    ),
    "an open quote is closed": (
        validation.is_malformed,
        'F.array_join("fields", dialect.separator) == F.col("_raw")',
        "F.lit(True)",
        misjudged,
    ),
    "quotes stay": (validation.without_quotes, "bare, quote), bare)", "bare, quote), field)", misjudged),
    "doubled quotes stay": (
        validation.without_quotes,
        "F.lit(mark * 2), quote)",
        "F.lit(mark * 2), F.lit(mark * 2))",
        misjudged,
    ),
    "a NUL passes": (validation.is_malformed, 'F.contains("_raw", F.lit("\\0"))', "F.lit(False)", misjudged),
    "only blanks are white space": (validation.trim, "F.lit(WHITE_SPACE)", 'F.lit(" ")', misjudged),
    "any number is money": (validation.read, "text.rlike(DECIMAL)", "F.lit(True)", misjudged),
    "text with a blank behind it is plain": (
        validation.trim,
        'F.substring(text, -1, 1).between("!", "~")',
        "F.lit(True)",
        misjudged,
    ),
    "any date is one": (validation.read, "text.rlike(DATE)", "F.lit(True)", misjudged),
    "there is a year 0": (validation.read, "(text >= FIRST_YEAR) & text.rlike(DATE)", "text.rlike(DATE)", misjudged),
    "a return ends a record": (spark_csv.records, 'path, lineSep="\\n")', "path)", misread),
    "a record in quotes loses them": (
        spark_csv.spanning_records,
        "min(widest, max(MANY_FIELDS, most)) + 1",
        "1",
        misread,
    ),
}


@takes_minutes
@pytest.mark.parametrize("wrong", SPARK_PLANTS)
def test_a_bug_planted_in_sparks_reading_is_found(files, folder, quick, wrong, monkeypatch, say):
    *planted, check = SPARK_PLANTS[wrong]
    plant(monkeypatch, *planted)
    found = check(quick, list(sound(files[:300], folder)))
    assert found
    say(f"{wrong}: {len(found):,} differences, the first: {found[0][:150]!r}")


# ---- through the jobs, on the stack ---------------------------------------------------------------------------------

FIRST = date(1975, 1, 1)
SOUND = list(CATALOG) if IN_FULL else ["patients", "visits"]
OF_A_DATASET = {
    "landing_to_bronze": landing_to_bronze.landing_to_bronze,
    "bronze_to_silver": bronze_to_silver.bronze_to_silver,
    "silver_to_gold": silver_to_gold.silver_to_gold,
}


@pytest.fixture(scope="module")
def ground(stack, spark, tmp_path_factory):
    """Yields the Spark Connect server, with separate buckets and landing files and one valid date in gold."""
    with pytest.MonkeyPatch.context() as patch, few_rows(spark):
        patch.setenv("SPARK_REMOTE", f"sc://127.0.0.1:{settings.get('SPARK_CONNECT_PORT')}")
        patch.setenv("LANDING_DIR", str(tmp_path_factory.mktemp("landing")))
        for kind in ("BRONZE", "SILVER"):
            patch.setenv(f"MINIO_BUCKET_{kind}", f"hostile-{os.getpid()}-{kind.lower()}")
            create_bucket(settings.get(f"MINIO_BUCKET_{kind}"))
        empty_warehouse()
        try:
            for name in SOUND:
                land(name, FIRST, hostile.file(name, ",".join(VALID[name].values())))
                for job in OF_A_DATASET.values():
                    job(CATALOG[name], FIRST)
            gold_to_marts.gold_to_marts(FIRST)
            yield resident()
        finally:
            empty_warehouse()
            for kind in ("BRONZE", "SILVER"):
                remove_bucket(settings.get(f"MINIO_BUCKET_{kind}"))


def land(dataset, day, content):
    path = landing.landing_path(CATALOG[dataset], day)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def resident():
    """Returns the Spark Connect server's applications; another id would mean that it has crashed."""
    return [app["id"] for app in services.resident()]


def versions():
    """Returns the newest version of each Delta table."""
    return [
        delta_log.last_commit(CATALOG[name], kind)
        for name in CATALOG
        for kind in ("accepted", "rejected")
        if delta_tables.has_silver(CATALOG[name], kind)
    ]


def contents(spark, postgres):
    """Returns the rows of the valid date in silver and gold."""
    silver = [
        delta_tables.silver(spark, CATALOG[name])
        .filter(F.col("_partition_date") == FIRST)
        .select(F.to_json(F.struct("*")))
        for name in SOUND
    ]
    gold = [postgres.execute(f"select * from {name} where _partition_date = %s", [FIRST]).fetchall() for name in SOUND]
    return sorted(map(repr, reduce(DataFrame.unionAll, silver).collect())), gold


def marts_of(postgres):
    return [sorted(map(repr, postgres.execute(f"select * from {mart}"))) for mart in (*MARTS, "ops.mart_trust")]


DATES = (FIRST + timedelta(days=number) for number in itertools.count(1))


def refused_files():
    """Yields the files of the corpus to refuse; the large ones too if there is time."""
    made = {name: (dataset, make()) for name, (dataset, make) in hostile.large().items() if IN_FULL}
    for name, (dataset, content) in (hostile.corpus() | made).items():
        if isinstance(expected(dataset, content), model.Refusal):
            yield name, dataset, content


def test_a_refused_file_leaves_its_sentence_and_nothing_else(ground, spark, postgres):
    before, cases = (versions(), contents(spark, postgres), marts_of(postgres)), 0
    for name, dataset, content in refused_files():
        day, cases = next(DATES), cases + 1
        land(dataset, day, content)
        with pytest.raises(program.Refused) as refused:
            landing_to_bronze.landing_to_bronze(CATALOG[dataset], day)
        sentence = str(refused.value)
        assert sentence.startswith(f"{day:%Y/%m/%d}/{dataset}.csv") and is_clear(sentence), name
        assert bronze_files.bronze_head(CATALOG[dataset], day) is None, name
        with pytest.raises(program.Refused, match="is missing"):
            bronze_to_silver.bronze_to_silver(CATALOG[dataset], day)
        found = postgres.execute("select outcome, error from ops.ledger where partition_date = %s", [day]).fetchall()
        assert ("failed", sentence) in found and {outcome for outcome, _ in found} == {"failed"}
        assert not postgres.execute("select from ops.receipts where partition_date = %s", [day]).fetchall()
    assert cases >= 20
    assert (versions(), contents(spark, postgres), marts_of(postgres)) == before and resident() == ground


def test_a_bad_file_in_the_place_of_a_good_one_leaves_the_good_one_standing(ground, spark, postgres):
    day = next(DATES)
    good = hostile.file("patients", hostile.row("patients", 1))
    path = land("patients", day, good)
    landing_to_bronze.landing_to_bronze(CATALOG["patients"], day)
    bronze_to_silver.bronze_to_silver(CATALOG["patients"], day)
    before, object_before = versions(), bronze_files.bronze_head(CATALOG["patients"], day)["ETag"]
    path.write_bytes(good + b"\xff\xfe\n")
    with pytest.raises(program.Refused, match="bytes that are not UTF-8"):
        landing_to_bronze.landing_to_bronze(CATALOG["patients"], day)
    assert bronze_files.bronze_head(CATALOG["patients"], day)["ETag"] == object_before
    assert versions() == before
    check_silver(spark, postgres, "patients", day, good)


def check_silver(spark, postgres, dataset, day, content):
    """Checks that silver and the ledger hold the model's result for a file."""
    reading = model.read_file(content, dataset)
    accepted, rejected, amounts, _ = hostile.verdicts([reading], dataset)
    here = F.col("_partition_date") == day
    both = [delta_tables.silver(spark, CATALOG[dataset], kind).filter(here) for kind in ("accepted", "rejected")]
    assert differ(f"{day}", accepted, accepted_rows(both[0], dataset)) == []
    assert differ(f"{day}", rejected, rejected_rows(both[1], dataset)) == []
    [found] = postgres.execute(
        "select bronze_rows, accepted, rejected, amount_in from ops.standing "
        "where dataset = %s and partition_date = %s",
        [dataset, day],
    ).fetchall()
    money = sum(amounts) if dataset in model.AMOUNTS else None
    assert tuple(found) == (len(reading.records), accepted.total(), rejected.total(), money)
    reasons = postgres.execute(
        "select reason, hits from ops.reasons natural join ops.receipts "
        "where layer = 'silver' and dataset = %s and partition_date = %s and hits > 0",
        [dataset, day],
    ).fetchall()
    wanted = Counter()
    for (_, codes, _), rows in rejected.items():
        wanted.update(dict.fromkeys(codes.split(";"), rows))
    assert dict(map(tuple, reasons)) == wanted
    return accepted


AT_ONCE = ("days at the edges", "texts of all kinds")
TO_GOLD = ("days at the edges", "moments at the edges", "amounts at the edges", "texts of all kinds", "texts for keys")


def call(*words):
    """Runs a program as a person would; returns its output, checked to be printable and without patients' values."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=settings.ROOT,
        env=os.environ | {"PYTHONPATH": str(settings.ROOT), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert all(line.isprintable() for line in done.stdout.splitlines()) and MARK not in done.stdout, done.stdout[:4000]
    assert "Traceback" not in done.stdout, done.stdout[:4000]
    return done


def test_a_sound_hostile_file_balances_from_landing_to_the_marts(ground, spark, postgres, say):
    """Runs a few of the corpus in this process; the test below runs all of them as separate programs."""
    before = contents(spark, postgres)
    for name in AT_ONCE:
        dataset, content = hostile.corpus()[name]
        day = next(DATES)
        land(dataset, day, content)
        said = landing_to_bronze.landing_to_bronze(CATALOG[dataset], day)
        said += bronze_to_silver.bronze_to_silver(CATALOG[dataset], day)
        accepted = check_silver(spark, postgres, dataset, day, content)
        if name in TO_GOLD:
            said += silver_to_gold.silver_to_gold(CATALOG[dataset], day)
            check_gold(postgres, dataset, day, accepted)
        assert MARK not in said
    gold_to_marts.gold_to_marts(FIRST)
    assert contents(spark, postgres) == before and resident() == ground


def check_gold(postgres, dataset, day, accepted):
    texts = ", ".join(f"{name}::text" for name in model.COLUMNS[dataset])
    found = postgres.execute(f"select {texts} from {dataset} where _partition_date = %s", [day]).fetchall()
    assert differ(f"gold {dataset}", accepted, Counter(map(tuple, found))) == []


@takes_minutes
def test_every_sound_file_of_the_corpus_balances_through_the_programs(ground, spark, postgres, say):
    before, days = contents(spark, postgres), defaultdict(dict)
    made = {name: (dataset, make()) for name, (dataset, make) in hostile.large().items()}
    for name, (dataset, content) in (hostile.corpus() | made).items():
        if isinstance(expected(dataset, content), model.Reading):
            day = next(DATES)
            land(dataset, day, content)
            days[dataset][day] = name, content
    for dataset in days:
        words = [dataset, *map(str, days[dataset])]
        for script in ("landing_to_bronze", "bronze_to_silver"):
            done = call(f"jobs/{script}.py", *words)
            assert done.returncode == 0, done.stdout[-2000:]
    for dataset in days:
        for day, (name, content) in days[dataset].items():
            accepted = check_silver(spark, postgres, dataset, day, content)
            if name in TO_GOLD:
                done = call("jobs/silver_to_gold.py", dataset, str(day))
                assert done.returncode == 0, done.stdout[-2000:]
                check_gold(postgres, dataset, day, accepted)
    assert call("jobs/gold_to_marts.py", str(FIRST)).returncode == 0
    for words in (["ledger"], ["summary"]):
        assert call("-m", "pipelines", *words).returncode == 0
    assert contents(spark, postgres) == before and resident() == ground
    say(f"{sum(map(len, days.values()))} files of the corpus went through the programs to silver")


@takes_minutes
def test_every_refused_file_of_the_corpus_ends_its_program_with_one_sentence(ground):
    for name, dataset, content in refused_files():
        day = next(DATES)
        land(dataset, day, content)
        done = call("jobs/landing_to_bronze.py", dataset, str(day))
        assert done.returncode == 1 and len(done.stdout.splitlines()) == 1, (name, done.stdout[:1000])
        assert done.stdout.startswith(f"{dataset} {day}: {day:%Y/%m/%d}/{dataset}.csv"), name
    assert resident() == ground


@takes_minutes
def test_the_first_and_the_last_date_there_are_break_nothing(ground, spark, postgres):
    for day in (date.min, date.max):
        for dataset in CATALOG:
            land(dataset, day, hostile.file(dataset))
        assert (settings.path("LANDING_DIR") / ("0001/01/01" if day == date.min else "9999/12/31")).is_dir()
        done = call("-m", "pipelines", "run", str(day))
        assert done.returncode == 0, done.stdout[-2000:]
    for words in (
        ["pipelines", "ledger"],
        ["pipelines", "summary"],
        ["dashboards.pages"],
        ["jobs.rejects", "show", "9999-12-31"],
    ):
        done = call("-m", *words)
        assert done.returncode == 0, done.stdout[-2000:]


def without(departments, name, content):
    """Returns a file's text; for a dashboard, without the department names, which its page may contain."""
    for department in sorted(departments, key=len, reverse=True) if name.startswith("dashboards/") else []:
        text = json.dumps(department, ensure_ascii=False).replace("<", "\\u003c")
        content = content.replace(text.encode(), b'""')
    return content


def test_no_log_page_or_ledger_row_holds_a_value_of_them(ground, stack, spark, postgres):
    all_logged(spark, stack)
    departments = [name for (name,) in postgres.execute("select distinct department from mart_department_stats")]
    held = [name for name, content in stack_files(stack) if MARK.encode() in without(departments, name, content)]
    ledger = postgres.execute("select each::text from ops.ledger as each").fetchall()
    assert held == [] and not any(MARK in text for (text,) in ledger)


# ---- spreadsheets ----------------------------------------------------------------------------------------------------


def live_cells(text):
    """Returns the cells of a CSV text that a spreadsheet would take for formulas, split at any of its separators."""
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    for separator in ";\t":
        cells += [
            cell.split(",")[0] for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in row
        ]
        cells += [cell.split(",")[0] for cell in re.split(f"[\r\n{separator}]", text)]
    number = re.compile(r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)")
    bare = (cell.strip('" \t\r\n\u00a0\u2003') for cell in cells)
    return [cell for cell in bare if cell[:1] in tuple("=+-@＝＋－＠") and not number.fullmatch(cell)]  # noqa: RUF001


def formulas():
    """Returns a visits file's header, its rows, all to be rejected, and its malformed records."""
    texts = [text.replace(NUMBERED, f"{MARK}7x") for text in hostile.TEXTS]
    rows = [[text, f"+{n}", "P1", "-1", text, text, "=1", "", "?", text] for n, text in enumerate(texts)]
    names = ["=cmd|' /C calc'!A0", *model.COLUMNS["visits"], "@SUM(1)"]
    return names, rows, ["=1+1,", "@SUM(1);=2", "-5;+1+1", '"=1+1']


def written(rows):
    content = io.StringIO(newline="")
    csv.writer(content).writerows(rows)
    return content.getvalue()


def test_what_is_exported_is_no_live_formula_whatever_separator_a_spreadsheet_splits_at(monkeypatch):
    names, rows, broken = formulas()
    assert len(live_cells(written(rows))) > 100
    as_text = [list(map(reject_export.as_text, row)) for row in (names, *rows, broken)]
    assert live_cells(written(as_text)) == []
    bare = [[field.replace("'", "") for field in row] for row in (names, *rows, broken)]
    assert [[field.replace("'", "") for field in row] for row in as_text] == bare, "only apostrophes are added"
    monkeypatch.setattr(reject_export, "CELL", re.compile(r"(\A)(?=([=+\-@]))"))
    assert live_cells(written(map(reject_export.as_text, row) for row in rows)), (
        "to look at the first character is not enough"
    )


@takes_minutes
def test_an_export_holds_no_live_formula(ground, tmp_path):
    day, (names, rows, broken) = next(DATES), formulas()
    land("visits", day, (written([names, *rows]) + "\n".join(broken)).encode())
    landing_to_bronze.landing_to_bronze(CATALOG["visits"], day)
    bronze_to_silver.bronze_to_silver(CATALOG["visits"], day)
    assert len(list(reject_export.export(day, [CATALOG["visits"]], tmp_path))) == 1
    exported = (tmp_path / f"{day:%Y/%m/%d}" / "visits.csv").read_bytes().decode()
    header, *found = csv.reader(io.StringIO(exported, newline=""))
    assert header[0] == "'=cmd|' /C calc'!A0" and len(found) == len(rows) + len(broken)
    assert live_cells(exported) == []
    sent = Counter(row[4].replace("'", "") for row in rows)
    assert Counter(row[4].replace("'", "") for row in found if row[4]) == sent, "nothing but apostrophes is added"


# ---- command-line arguments ------------------------------------------------------------------------------------------

BAD_DAYS = [
    "", " ", "../../etc/passwd", "/etc/passwd", "2026-01-01/../..", "2026/01/01", "2026-1-1", "2026-02-30",
    "2026-13-01",
    "0000-01-01", "10000-01-01", "2026-01-01\n", " 2026-01-01", "20260101", "2026-W01-1", "2026-001",
    "2026-01-01T00:00",
    "\uff12\uff10\uff12\uff16-01-01", "\u0662\u0660\u0662\u0666-\u0660\u0661-\u0660\u0661", "today",
    "\x1b[31m2026-01-01", "\udcff",
    "2026-01-01\0", "'; drop table patients; --", "$(touch /tmp/hostile)", "${jndi:ldap://127.0.0.1/a}",
    "9" * 10_000, "\u202e",
]  # fmt: skip
BAD_DATASETS = [
    "", "../patients", "/etc/passwd", "patients/../visits", "rejected/patients", "patients.csv", "PATIENTS",
    "patients ", "pat\0ients",
    "\x1b[31mpatients", "\udcff", "patients\n", "'; drop table patients; --", "$(touch /tmp/hostile)", "p" * 10_000,
    "\uff50atients",
]  # fmt: skip
OF_A_DAY = {
    **{name: partial(program.run, job) for name, job in OF_A_DATASET.items()},
    "gold_to_marts": lambda: program.run(gold_to_marts.gold_to_marts, words=["date"]),
    "generate": generate.main,
    "rejects show": rejects.main,
    "rejects export": rejects.main,
    "backtest --first": backtest.main,
    "backtest --last": backtest.main,
    "pipelines run": pipelines.main,
}


def refusal(run, words, monkeypatch, capsys):
    """Returns the message of a program that ends because of its arguments."""
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        run()
    said = capsys.readouterr()
    assert end.value.code not in (0, None)
    return said.out + said.err + (end.value.code if isinstance(end.value.code, str) else "")


@pytest.mark.parametrize("name", OF_A_DAY)
def test_what_is_no_date_is_refused_by_every_program(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    for text in BAD_DAYS:
        words = [*name.split(), *(["patients"] if name in OF_A_DATASET else []), text]
        if name.startswith("backtest"):
            words = [words[0], f"{words[1]}={text}"]
        sentence = refusal(OF_A_DAY[name], words, monkeypatch, capsys).strip()
        assert "is not a date" in sentence and sentence.isprintable() and len(sentence) < 200, (text, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OF_A_DATASET)
def test_what_is_no_dataset_is_refused_by_every_program(name, monkeypatch, capsys):
    for text in BAD_DATASETS:
        sentence = refusal(OF_A_DAY[name], [name, text, "2026-01-01"], monkeypatch, capsys).strip()
        assert "is not a dataset" in sentence and sentence.isprintable() and len(sentence) < 200, (text, sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Silver", "--dataset", "../\x1b[31m", "--date", "2026-01-01"], "is not a dataset"),
        (["Day", "--date", "../\x1b[31m"], "is not a date"),
        (["RangeDaily", "--of", "Day", "--start", "../\x1b[31m", "--stop", "2026-01-02"], "cannot be read"),
        (["RangeDaily", "--of", "Day", "--start", "2026-02-30", "--stop", "2026-03-01"], "cannot be read"),
    ],
)
def test_luigi_refuses_them_in_a_sentence(words, sentence):
    done = call("-m", "luigi", "--module", "pipelines", *words)
    assert done.returncode and len(done.stdout.splitlines()) == 1 and sentence in done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(
    "text", ["$(shell touch {})", "`touch {}`", "$$(touch {})", '"; touch {}; "', "2026-01-01; touch {}"]
)
def test_make_runs_nothing_that_stands_in_a_word(text, tmp_path):
    text = text.format(tmp_path / "touched")
    for words in (
        [f"DATE={text}"],
        ["DATE=2026-01-01", f"KEY={text}", f"DATASET={text}", f"TO={text}", f"SCALE={text}"],
    ):
        subprocess.run(["make", "-C", settings.ROOT, "date", *words], capture_output=True)
        subprocess.run(["make", "-C", settings.ROOT, "date"], capture_output=True, env=os.environ | {"DATE": text})
    assert list(tmp_path.iterdir()) == []


@takes_minutes
@pytest.mark.parametrize(
    "key", ["'; drop table patients; --", "\x1b[31m", "a\u2028b", "k" * 10_000, "../../etc/passwd", "%s%n"]
)
def test_a_hostile_key_has_no_story(ground, key):
    done = call("-m", "jobs.rejects", "why", "--", key)
    assert done.returncode == 1 and "no file that was validated holds a row" in done.stdout
