"""Conversions of a source's texts, many cases in one Spark job each."""

from dataclasses import replace

import pytest

from jobs import conversion, sources
from jobs.catalog import CATALOG
from jobs.conversion import NOT_CONVERTED, Files
from jobs.sources import Cell, Source

PARIS = Source(
    "clinique",
    (),
    time_zone="Europe/Paris",
    encoding="cp1252",
    separator=";",
    decimal_mark=",",
    dates="dd/MM/yyyy",
    timestamps="dd/MM/yyyy HH:mm[:ss]",
    nulls=("", "NULL", "-"),
)


def converted(spark, dataset, column, texts, source=PARIS, cell=None):
    """Returns what texts of one column are converted to, and how many local times were ambiguous."""
    rows = [("", "", None, *(text if name == column else "" for name in CATALOG[dataset].names)) for text in texts]
    names = ("_file string", "_raw string", "_malformed string", *(f"{n} string" for n in CATALOG[dataset].names))
    frame = spark.createDataFrame(rows, ", ".join(names))
    cells = {column: cell or Cell(("X",))}
    made = conversion.convert(frame, CATALOG[dataset], source, cells).select(column, "_doubled").collect()
    return [row[0] for row in made], sum(row[1] for row in made)


TIMES = {
    "05/01/2026 10:00": "2026-01-05 09:00:00",
    " 05/07/2026 10:00:30\u00a0": "2026-07-05 08:00:30",
    "29/03/2026 01:59:59": "2026-03-29 00:59:59",
    "29/03/2026 02:00": "29/03/2026 02:00",  # the clock skipped from here
    "29/03/2026 02:59:59": "29/03/2026 02:59:59",
    "29/03/2026 03:00": "2026-03-29 01:00:00",
    "25/10/2026 01:59": "2026-10-24 23:59:00",
    "25/10/2026 02:00": "2026-10-25 00:00:00",  # this hour came twice
    "25/10/2026 02:59:59": "2026-10-25 00:59:59",
    "25/10/2026 03:00": "2026-10-25 02:00:00",
    "25/10/2026 02:30+01:00": "2026-10-25T02:30:00+01:00",
    "25/10/2026 02:30 Z": "2026-10-25T02:30:00Z",
    "2026-01-05T10:00Z": "2026-01-05T10:00Z",
    "2026-01-05 10:00": f"2026-01-05 10:00{NOT_CONVERTED}",  # it would be read as UTC
    "31/02/2026 10:00": "31/02/2026 10:00",
    "05/01/2026 24:00": "05/01/2026 24:00",
    "5/1/2026 10:00": "5/1/2026 10:00",
    "05/01/2026": "05/01/2026",
    " - ": None,
    "NULL": None,
    "": None,
    "null": "null",
    "01/01/0001 00:00": "01/01/0001 00:00",  # there is no year before
}
DATES = {
    "05/01/2026": "2026-01-05",
    "29/02/2024": "2024-02-29",
    "29/02/2026": "29/02/2026",
    "05-01-2026": "05-01-2026",
    "05/01/26": "05/01/26",
    "2026-01-05": "2026-01-05",
    "-": None,
}
DECIMALS = {
    "1200,50": "1200.50",
    "+,5": "+.5",
    "-12": "-12",
    "1.200,50": "1.200,50",
    "1.200": f"1.200{NOT_CONVERTED}",  # a thousand and two hundred, or one and a fifth
    "12,": "12,",
    "1,2,3": "1,2,3",
    "12,50-": "12,50-",
    "12,50 €": "12,50 €",
    "NULL": None,
}


def test_timestamps_are_read_by_their_pattern_and_zone(spark):
    made, doubled = converted(spark, "admissions", "admit_ts", TIMES)
    assert dict(zip(TIMES, made, strict=True)) == TIMES and doubled == 2
    utc = replace(PARIS, time_zone="UTC", timestamps="yyyyMMdd[ HH[:mm]]")
    made, doubled = converted(spark, "admissions", "admit_ts", ["20260329 02", "20260329", "2026-03-29 02:30"], utc)
    assert made == ["2026-03-29 02:00:00", "2026-03-29 00:00:00", "2026-03-29 02:30"] and not doubled


def test_a_skipped_time_is_not_read_as_another_whatever_its_notation(spark):
    iso = replace(PARIS, timestamps="yyyy-MM-dd HH:mm")
    made, _ = converted(spark, "admissions", "admit_ts", ["2026-03-29 02:30", "2026-03-29 03:30"], iso)
    assert made == [f"2026-03-29 02:30{NOT_CONVERTED}", "2026-03-29 01:30:00"]


def test_a_local_time_of_year_0_stays_as_it_is_where_utc_is_a_year_ahead(spark):
    west = replace(PARIS, time_zone="America/New_York")
    texts = {"31/12/0000 23:59": "31/12/0000 23:59", "01/01/0001 00:00": "0001-01-01 04:56:02"}
    made, _ = converted(spark, "admissions", "admit_ts", texts, west)
    assert dict(zip(texts, made, strict=True)) == texts


def test_dates_are_read_by_their_pattern_or_are_the_local_days_of_timestamps(spark):
    made, _ = converted(spark, "patients", "birth_date", DATES)
    assert dict(zip(DATES, made, strict=True)) == DATES
    days = {"05/01/2026 00:30": "2026-01-05", "29/03/2026 02:30": "2026-03-29", "05/01/2026": "05/01/2026"}
    made, _ = converted(spark, "patients", "registration_date", days, cell=Cell(("X",), as_timestamp=True))
    assert dict(zip(days, made, strict=True)) == days


def test_decimals_are_read_by_their_mark(spark):
    made, _ = converted(spark, "billing", "total_amount", DECIMALS)
    assert dict(zip(DECIMALS, made, strict=True)) == DECIMALS
    made, _ = converted(spark, "billing", "total_amount", ["12.50", "12,50"], replace(PARIS, decimal_mark="."))
    assert made == ["12.50", "12,50"]


def test_codes_stand_for_values_and_others_are_handed_on(spark):
    cell = Cell(("X",), (("1", "M"), ("02", "F"), ("-", "Unknown"), ("9", "")))
    made, _ = converted(spark, "patients", "gender", [" 1 ", "02", "2", "-", "9", "NULL", "f", " x "], cell=cell)
    assert made == ["M", "F", "2", "Unknown", "", None, "f", " x "]
    made, _ = converted(spark, "patients", "gender", ["", "1"], cell=Cell(("X",), (("", "Unknown"),)))
    assert made == ["Unknown", "1"]


@pytest.mark.parametrize("spans", [False, True])
def test_records_are_told_apart_by_the_sources_dialect(spark, tmp_path, spans):
    """Reads two files with the same columns in another order.

    One has a record that spans lines, and its header a second time, or neither of them.
    """
    broken, again = ("\n", "ID;NAME;NOTE\r\n") if spans else (" ", "")
    files = {
        "a.csv": f"ID;NAME;NOTE\r\nP1;'Œuf; l''{broken}été';x\r\n\r\nP2;1\r\n{again}P3;'a' ;z\r\nP4;a'b;\r\n",
        "b.csv": "NAME;ID;NOTE;ID2\nÀ;P5;;\n;;;\nP6;;;;;\n;'P7;;",
    }
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("cp1252"))
    source = replace(PARIS, quote="'")
    headers = {name: tuple(text.splitlines()[0].split(";")) for name, text in files.items()}
    spanning = {"a.csv": spans, "b.csv": True}
    scans = [Files((f"file://{tmp_path}/{n}",), ";".join(headers[n]), headers[n], spanning[n], 6) for n in files]
    conversion.prepare(spark)
    found = conversion.read_fields(spark, scans, ["ID", "NAME"], source).collect()
    assert [
        (row["_file"], row["_malformed"], row["_field_0"], row["_field_1"]) for row in found if not row["_malformed"]
    ] == [
        ("a.csv", None, "P1", f"Œuf; l'{broken}été"),
        *([("a.csv", None, "ID", "NAME")] if again else []),
        ("a.csv", None, "P3", "a"),
        ("a.csv", None, "P4", "a'b"),
        ("b.csv", None, "P5", "À"),
        ("b.csv", None, "", ""),
    ]
    broken = ["P2;1", "P6;;;;;", ";'P7;;"]
    assert [(row["_raw"], row["_malformed"]) for row in found if row["_malformed"]] == [
        *zip(broken, broken, strict=True)
    ]


def test_several_columns_are_joined_and_a_value_stands_for_itself(spark):
    rows = [("", "", None, "05/01/2026", " 10:00 "), ("", "", None, "05/01/2026", "-"), ("", "", None, "", " ")]
    columns = "_file string, _raw string, _malformed string, _field_0 string, _field_1 string"
    frame = spark.createDataFrame(rows, columns)
    visits = CATALOG["visits"]
    cells = {"visit_start_ts": Cell(("DAY", "TIME")), "visit_id": Cell(("DAY",)), "status": Cell(value="-")}
    taken = conversion.take_cells(frame, ["DAY", "TIME"], cells, visits, PARIS)
    made = conversion.convert(taken, visits, PARIS, cells)
    made = made.select("visit_id", "visit_start_ts", "status", "doctor_id").collect()
    assert [tuple(row) for row in made] == [
        ("05/01/2026", "2026-01-05 09:00:00", "-", None),
        ("05/01/2026", "05/01/2026", "-", None),
        (None, None, "-", None),
    ]


def test_what_sql_returns_is_text_in_the_sources_notation_or_typed(spark):
    billing = CATALOG["billing"]
    result = spark.sql(
        "select 7 as bill_id, 'V1' as visit_id, cast(1200.5 as double) as total_amount, '3,5' as insurance_amount, "
        "timestamp '2026-01-05 10:00:00' as payment_ts, 'Paid' as payment_status"
    )
    typed = [name for name, kind in result.dtypes if kind != "string"]
    made = conversion.convert(conversion.take_result(result, billing), billing, PARIS, {}, typed)
    lines = conversion.to_lines(made, billing).select("value").collect()
    assert [row.value for row in lines] == ["7,V1,1200.50,3.5,,Paid,2026-01-05 10:00:00"]


def test_every_encoding_is_one_that_java_knows(spark, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"A\nx\n")
    conversion.prepare(spark)
    for name, charset in sources.ENCODINGS.items():
        if not charset.startswith("UTF-16"):
            scan = Files((f"file://{tmp_path}/a.csv",), "A", ("A",), False, 1)
            found = conversion.read_fields(spark, [scan], ["A"], replace(PARIS, encoding=name)).collect()
            assert [row["_raw"] for row in found] == ["x"], name


def test_a_plan_stays_of_a_size_that_a_driver_can_hold(spark, tmp_path, capsys):
    """Limits the plan: Spark copies an expression that it thinks cheap to each use, which once filled the memory."""
    (tmp_path / "a.csv").write_bytes(b"A\nx\n")
    visits = CATALOG["visits"]
    scan = Files((f"file://{tmp_path}/a.csv",), "A", visits.names, True, 8)
    cells = {name: Cell((name,)) for name in visits.names} | {"visit_start_ts": Cell(("visit_start_ts", "status"))}
    rows = conversion.read_fields(spark, [scan, scan], list(visits.names), PARIS)
    rows = conversion.take_cells(rows, visits.names, cells, visits, PARIS)
    lines = conversion.to_lines(conversion.convert(rows, visits, PARIS, cells), visits)
    lines.transform(conversion.cut).filter("value <> ''").explain(extended=True)
    plan = capsys.readouterr().out
    assert "Project" in plan and len(plan) < 300_000
