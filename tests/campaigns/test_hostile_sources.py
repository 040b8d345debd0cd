"""Checks a source's hostile raw files in many dialects: each record is accounted for, or the file is refused."""

import hashlib
import io
import os
import shutil
from collections import defaultdict
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import pytest
from pyspark.errors import PySparkException

from jobs import bronze_files, conversion, derivation, exports, landing, patterns, program, raw, spark_csv
from jobs.catalog import CATALOG
from jobs.derivation import Export
from jobs.source_to_bronze import source_to_bronze
from jobs.sources import Declaration
from tests.campaigns import test_hostile as own
from tests.campaigns.test_hostile import (  # noqa: F401  # ground is a fixture
    DATES,
    IN_FULL,
    few_rows,
    ground,
    is_clear,
    misjudged,
    takes_minutes,
)
from tests.campaigns.test_laws import plant
from tests.support import hostile_sources, model, source_oracle
from tests.support.hostile import MARK, text_of
from tests.support.source_oracle import Form, Reading, Refusal

COUNT = int(os.environ.get("FILES") or 200)
FORMS = hostile_sources.forms(60 if IN_FULL else 6)
DAY = date(2026, 1, 31)


class Case(NamedTuple):
    """Holds a raw file with its number, and what the oracle says of it: how it is read, or why it is refused."""

    number: int
    form: Form
    content: bytes
    expected: Reading | Refusal

    @property
    def name(self) -> str:
        return f"{self.number}.txt"


def expected(form, content, name):
    try:
        return source_oracle.read(content, form, name)
    except Refusal as refusal:
        return refusal


@pytest.fixture(scope="module")
def cases():
    """Returns the files of the corpus in each dialect, and generated ones."""
    files = [file for form in FORMS for file in hostile_sources.corpus(form).values()]
    files += hostile_sources.generate(COUNT, 1, FORMS)
    return [Case(number, *file, expected(*file, f"{number}.txt")) for number, file in enumerate(files)]


@pytest.fixture(scope="module")
def folder(cases, tmp_path_factory):
    """Returns the folder that has the files under their names."""
    folder = tmp_path_factory.mktemp("raw")
    for case in cases:
        (folder / case.name).write_bytes(case.content)
    return folder


@lru_cache
def declared(name):
    """Returns the source of a dialect, and how its dataset is made."""
    [form] = [form for form in FORMS if form.name == name]
    source = Declaration(name).read(source_oracle.declaration(form))
    return source, source.by_dataset[form.dataset]


def profile(case, folder):
    """Returns the profile of a raw file, or the sentence that refuses it."""
    source, mapping = declared(case.form.name)
    try:
        return exports.read(folder / case.name, case.name, source, mapping.used)
    except program.Refused as refused:
        return str(refused)


# ---- the plain reader against the oracle -----------------------------------------------------------------------------


def difference(case, folder):
    """Describes how a raw file's profile differs from the oracle's reading; "" if it does not."""
    wanted, found = case.expected, profile(case, folder)
    if isinstance(found, str):
        if isinstance(wanted, Reading):
            is_known = wanted.ahead and f"{case.name} begins with a line of white space" in found
            return "" if is_known else f"is refused, which it should not be: {found}"
        is_cause = any(all(word in found for word in cause) for cause in wanted.args)
        is_named = case.name in found and is_clear(found)
        return "" if is_cause and is_named else f"is refused as {found!r}, where any of {wanted.args} should be said"
    if isinstance(wanted, Refusal):
        return f"is not refused, where any of {wanted.args} should be said"
    right = wanted.header, len(wanted.records), len(case.content), hashlib.sha256(case.content).hexdigest()
    if (found.header, found.records, found.bytes, found.sha256) != right:
        return f"is described as {found}, where {right} is right"
    return misled(case)


def misled(case):
    """Describes how the lines that lead back from a key differ from the oracle's; "" if they do not."""
    source, mapping = declared(case.form.name)
    lines = defaultdict(set)
    for record in case.expected.records:
        if record.row and (key := record.row[0].strip(model.BLANKS)):
            lines[key].add(record.line)
    starts = {record.line for record in case.expected.records}
    for key, own_lines in list(lines.items())[:5]:
        text = io.TextIOWrapper(io.BytesIO(case.content), encoding=source.encoding, newline="\n")
        found = {*exports.find(text, key, source, mapping, model.COLUMNS[case.form.dataset][0])}
        if not own_lines <= found <= starts:  # a malformed record may have the key, too
            return f"leads back from {key!r} to the lines {found}, where {own_lines} are right"
    return ""


def differences(cases, folder):
    return [
        f"{case.name} {case.form} {said}\n{case.content[:2000]!r}"
        for case in cases
        if (said := difference(case, folder))
    ]


def test_every_raw_file_is_described_or_refused_as_the_oracle_says(cases, folder, say):
    assert differences(cases, folder) == []
    refused = sum(isinstance(case.expected, Refusal) for case in cases)
    records = sum(len(case.expected.records) for case in cases if isinstance(case.expected, Reading))
    say(f"{len(cases):,} raw files: {refused:,} refused in a sentence, {records:,} records in the others")
    assert len(cases) / 20 < refused < len(cases) * 2 / 3


# (what is done wrong, the function, its line, the wrong line)
PLAIN_PLANTS = {
    "a quote is a double quote": (landing.read_batches, "text), dialect)", "text))"),
    "lines that came together are a record": (exports.read, "count += len(records)", "count += 1"),
    "a return ends a record": (exports.read, 'newline="\\n"', 'newline=""'),
    "bytes of another encoding are replaced": (exports.read, 'newline="\\n"', 'newline="\\n", errors="replace"'),
    "a blank line is a record": (exports.read, "not record.strip(WHITE_SPACE) for", 'record == "\\n" for'),
    "UTF-8 passes for another encoding": (exports.read, "not file.is_ascii and file.is_utf8", "False"),
    "lines count from 0": (exports.wrong_encoding, "start=1", "start=0"),
    "a name may come twice": (exports.read_header, "times[column] > 1", "times[column] > 2"),
    "rows may stand in a header": (exports.read_header, "and not faults ", ""),
    "a separator is a comma": (exports.names_of, '.lstrip("\\ufeff"), form)', '.lstrip("\\ufeff"))'),
    "a key leads one line too far": (
        exports.find,
        "start, number = number, number",
        "start, number = number + 1, number",
    ),
    "a key in quotes is not found": (
        exports.find,
        "landing.plain_fields(record",
        "(lambda text, form: text.split(form.separator))(record",
    ),
}


@pytest.mark.parametrize("wrong", PLAIN_PLANTS)
def test_a_bug_planted_in_the_plain_reading_is_found(cases, folder, wrong, monkeypatch, say):
    plant(monkeypatch, *PLAIN_PLANTS[wrong])
    found = differences(cases[:4000], folder)
    assert found
    say(f"{wrong}: found in {len(found):,} of {len(cases[:4000]):,} files")


# ---- Spark's conversion against the oracle ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(spark):
    """Yields a session that converts sources, tuned for few rows."""
    with few_rows(spark):
        conversion.prepare(spark)
        yield spark


def sound(cases, folder):
    """Yields the files that are read, each with its profile, by dialect."""
    found = defaultdict(list)
    for case in cases:
        described = profile(case, folder)
        if isinstance(case.expected, Reading) and not isinstance(described, str):
            found[case.form.name].append((case, described))
    return found


def by_spark(spark, files, folder):
    """Returns what Spark derives from files of one dialect in one job.

    By name: (the record's text, our line, times that came twice) of each record, or the name of an error.
    """
    form = files[0][0].form
    source, mapping = declared(form.name)
    [table] = mapping.tables
    export = Export(source, DAY, {}, {}, {table.files: [described for _, described in files]}, f"file://{folder}")
    found = {case.name: [] for case, _ in files}
    try:
        for row in derivation.convert(spark, export, mapping, CATALOG[form.dataset]).collect():
            found[row["_file"]].append((row["_raw"], row["value"], row["_doubled"]))
    except PySparkException as error:
        if len(files) == 1:
            return {files[0][0].name: error.getCondition() or type(error).__name__}
        middle = len(files) // 2  # which of them it is
        return by_spark(spark, files[:middle], folder) | by_spark(spark, files[middle:], folder)
    return found


def misconverted(case, lines):
    """Describes how the lines derived from a file differ from the oracle's rows; "" if they do not."""
    if isinstance(lines, str):
        return f"fails with {lines}"
    records = case.expected.records
    if len(lines) != len(records):
        return f"has {len(lines)} lines of {len(records)} records: {[text for text, *_ in lines]}"
    for record, (text, line, twice) in zip(records, lines, strict=True):
        row = [text_of(field) for field in record.row or [record.raw]]
        ours = [
            [text_of(field.decode()) for field in fields] if not is_open else None
            for _, fields, is_open in model.cut(f"{line}\n".encode())
        ]
        if (text_of(text), ours, twice or 0) != (text_of(record.raw), [row], record.twice):
            return f"line {record.line}: {text!r} became {ours}, {twice}, where {row}, {record.twice} is right"
    return ""


def wrong_conversions(spark, cases, folder):
    """Lists the files that Spark converts otherwise than the oracle; returns the lines of the others, too."""
    wrong, derived = [], {}
    for files in sound(cases, folder).values():
        found = by_spark(spark, files, folder)
        for case, _ in files:
            if said := misconverted(case, found[case.name]):
                wrong.append(f"{case.name} {case.form} {said}\n{case.content[:2000]!r}")
            else:
                derived[case.number] = [line for _, line, _ in found[case.name]]
    return wrong, derived


@pytest.fixture(scope="module")
def conversions(quick, cases, folder):
    return wrong_conversions(quick, cases, folder)


def test_spark_makes_of_every_record_what_the_oracle_makes(conversions, say):
    wrong, derived = conversions
    assert wrong == []
    say(f"{len(derived):,} raw files, {sum(map(len, derived.values())):,} records: converted as by the oracle")


def as_file(case, lines):
    """Returns the lines derived from one raw file as a file of ours."""
    return "\n".join([",".join(model.COLUMNS[case.form.dataset]), *lines, ""]).encode()


def test_the_derived_files_account_for_each_record_and_earn_the_reasons_of_the_model(
    conversions,
    cases,
    quick,
    tmp_path,
    say,
):
    readings, too_long = [], 0
    for number, lines in conversions[1].items():
        case, path = cases[number], tmp_path / f"{number}.csv"
        content = as_file(case, lines)
        path.write_bytes(content)
        assert own.difference(case.form.dataset, content, path) == "", case
        reading = own.expected(case.form.dataset, content)
        if isinstance(reading, model.Refusal):  # a field is too long
            too_long += 1
            continue
        assert landing.describe(path, CATALOG[case.form.dataset], path.name).records == len(case.expected.records)
        readings.append((number, case.form.dataset, reading, None))
    assert misjudged(quick, readings) == []
    rows = [record for _, _, reading, _ in readings for record in reading.records]
    malformed = sum(record.fields is None for record in rows)
    say(f"{len(rows):,} derived rows, {malformed:,} of them malformed, {too_long} files with a field that is too long")
    assert 0 < malformed < len(rows) / 2


SPARK_PLANTS = {
    "a header is a record": (conversion.read_records, '"header": True', '"header": False'),
    "a header among lines is a record": (
        conversion.read_fields,
        'is_record & (F.col("_raw") != part.heading)',
        "is_record",
    ),
    "a part of a time is taken from the next place": (patterns.form_of, "initial=1", "initial=2"),
    "quotes are double quotes": (spark_csv.spanning_records, "quote=quote,", "quote='\"',"),
    "a malformed record is a row of blanks": (
        conversion.to_lines,
        "F.when(is_malformed, text).otherwise(in_quotes)",
        "in_quotes",
    ),
    "a spelt-out null is a text": (conversion.known, "~text.isin(*source.nulls)", "F.lit(True)"),
    "a skipped time is taken for another": (
        conversion.to_timestamp,
        " | (F.from_utc_timestamp(utc, source.time_zone) == local)",
        " | F.lit(True)",
    ),
    "a time in our notation passes for UTC": (conversion.to_timestamp, ".when(mistakable,", ".when(F.lit(False),"),
    "a point passes for a decimal mark": (conversion.to_decimal, ".when(mistakable,", ".when(F.lit(False),"),
    "a date is that of its notation": (conversion.to_date, "iso.try_cast", "text.try_cast"),
    "the second of two times is taken for the first": (
        conversion.came_twice,
        "source) == local for",
        "source) != local for",
    ),
    "a time near a change of the clock is like any other": (conversion.is_near_change, "source) !=", "source) <"),
    "a blank has no code": (conversion.decode, "if code else text.isNull()", "if code else F.lit(False)"),
}


@takes_minutes
@pytest.mark.parametrize("wrong", SPARK_PLANTS)
def test_a_bug_planted_in_the_conversion_is_found(cases, folder, quick, wrong, monkeypatch, say):
    function, *_ = SPARK_PLANTS[wrong]
    plant(monkeypatch, *SPARK_PLANTS[wrong])
    for kind, converter in conversion.CONVERSIONS.items():
        if converter is function:
            monkeypatch.setitem(conversion.CONVERSIONS, kind, getattr(conversion, function.__name__))
    few = {form.name for form in FORMS[:12]}
    found, _ = wrong_conversions(quick, [case for case in cases if case.form.name in few][:1000], folder)
    assert found
    say(f"{wrong}: {len(found):,} differences, the first: {found[0][:300]!r}")


# ---- through the job, on the stack -----------------------------------------------------------------------------------


@pytest.fixture
def land(ground, cases, folder, tmp_path, monkeypatch):  # noqa: F811
    """Returns a function that lands raw files of one dialect for a date of their own."""
    monkeypatch.setenv("SOURCES_DIR", str(tmp_path))

    def land_files(files):
        day, form = next(DATES), files[0].form
        (tmp_path / f"{form.name}.yml").write_text(source_oracle.declaration(form))
        place = exports.folder(day, form.name)
        place.mkdir(parents=True)
        for case in files:
            shutil.copy(folder / case.name, place / case.name)
        return day

    return land_files


def is_short(case):
    """Tells whether the file of ours that a raw file becomes is not refused for a field that is too long."""
    content = source_oracle.our_file(case.expected, case.form.dataset)
    return isinstance(own.expected(case.form.dataset, content), model.Reading)


@takes_minutes
def test_a_date_of_hostile_raw_files_is_accounted_for(land, cases, folder, postgres, say):
    for name, files in list(sound(cases, folder).items())[:12]:
        files = [case for case, _ in files if is_short(case)]
        day = land(files)
        assert MARK not in source_to_bronze(day), name
        records = {case.name: len(case.expected.records) for case in files}
        query = "select file_name, records from ops.source_files where partition_date = %s"
        assert dict(postgres.execute(query, [day]).fetchall()) == records, name
        dataset = CATALOG[files[0].form.dataset]
        assert bronze_files.facts_of(dataset, day).records == sum(records.values()), name
        say(f"{name}: {len(files):,} files, {sum(records.values()):,} records through the job")


@takes_minutes
def test_a_refused_raw_file_leaves_its_sentence_and_nothing_else(land, cases, folder, postgres):
    refused = [case for case in cases[:200] if isinstance(case.expected, Refusal)]
    for case in refused[:40]:
        day = land([case])
        with pytest.raises(program.Refused) as error:
            source_to_bronze(day)
        sentence = str(error.value)
        assert any(all(word in sentence for word in cause) for cause in case.expected.args), (case, sentence)
        outcomes = postgres.execute("select outcome, error from ops.ledger where partition_date = %s", [day]).fetchall()
        assert ("failed", sentence) in outcomes and {outcome for outcome, _ in outcomes} == {"failed"}
        assert not any(bronze_files.bronze_head(dataset, day) for dataset in CATALOG.values())
        assert not [key for key in raw.keys("MINIO_BUCKET_BRONZE", raw.PREFIX) if landing.folder(day) in key]
