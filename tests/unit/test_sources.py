"""Declarations of sources, and what is said of a mistake in one or in the files that it is about."""

import csv
from datetime import date

import pytest

from jobs import example_export, exports, patterns, settings, sources, synthea_export
from jobs.landing import folder
from jobs.program import Refused
from pipelines.tasks import BronzeIngestion

DAY = date(2031, 5, 6)
PATIENTS = """\
encoding: windows-1252
separator: ";"
decimal_mark: ","
dates: dd/MM/yyyy
timestamps: dd/MM/yyyy HH:mm[:ss]
datasets:
  patients:
    files: PAT_*.csv
    columns:
      patient_id: N_DOSSIER
      gender: {from: SEXE, values: {1: M, 02: F, "": Unknown}}
      birth_date: DATE_NAISS
      registration_date: {from: DATE_CREA, as: timestamp}
"""
BILLING = """\
  billing:
    sql: billing.sql
    tables: {claims: CLAIMS_*.csv}
"""
HEADER = "N_DOSSIER;SEXE;DATE_NAISS;DATE_CREA;VILLE\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Provides a directory for declarations and a landing directory."""
    monkeypatch.setenv("SOURCES_DIR", str(tmp_path / "sources"))
    monkeypatch.setenv("LANDING_DIR", str(tmp_path / "landing"))
    (tmp_path / "sources" / "clinique").mkdir(parents=True)
    return tmp_path / "sources"


def declare(place, text=PATIENTS, name="clinique.yml"):
    (place / name).write_text(text)
    return sources.load("clinique")


def said(function, *arguments):
    with pytest.raises(Refused) as refused:
        function(*arguments)
    return str(refused.value)


def test_a_declaration_is_read_as_it_is_written(place):
    (place / "clinique" / "billing.sql").write_text("select 1;\n")
    source = declare(place, "doc: of a test\ntime_zone: Europe/Paris\nnulls: [NULL, ~, '-']\n" + PATIENTS + BILLING)
    assert (source.encoding, source.charset, source.time_zone) == ("cp1252", "windows-1252", "Europe/Paris")
    assert source.nulls == ("NULL", "", "-"), "what YAML takes for nothing is a text, too"
    patients, billing = source.mappings
    cells = dict(patients.columns)
    assert cells["gender"].names == ("SEXE",)
    assert cells["gender"].values == (("1", "M"), ("02", "F"), ("", "Unknown")), "and so is what it takes for a number"
    assert cells["registration_date"].as_timestamp and not cells["birth_date"].as_timestamp
    assert billing.sql == "select 1" and [table.files for table in billing.tables] == ["CLAIMS_*.csv"]


def test_what_a_conversion_depends_on_changes_the_fingerprint_and_nothing_else_does(place):
    (place / "clinique" / "billing.sql").write_text("select 1")
    first = declare(place, PATIENTS + BILLING).fingerprint
    assert declare(place, "doc: another\n# a remark\n" + PATIENTS + BILLING).fingerprint == first
    (place / "clinique" / "billing.sql").write_text("select 2")
    second = sources.load("clinique").fingerprint
    third = declare(place, PATIENTS.replace("02: F", "2: F") + BILLING).fingerprint
    assert len({first, second, third}) == 3


# (text of the declaration, what is said of it)
MISTAKES = {
    "nothing": ("", "sources/clinique.yml is empty; "),
    "no YAML": ("a: b\nc: [d\n", r"sources/clinique.yml line 3: it is not valid YAML \("),
    "a list": ("- a\n", "sources/clinique.yml line 1: should be keys with values, as in `key: value`."),
    "an unknown key": (
        "encodin: x\n" + PATIENTS,
        "sources/clinique.yml line 1: 'encodin' is not a key here; the keys are",
    ),
    "a key twice": (PATIENTS + "separator: x\n", "sources/clinique.yml line 14: 'separator' is here twice"),
    "no datasets": ("doc: x\n", "sources/clinique.yml line 1: lacks `datasets`"),
    "an unknown dataset": ("datasets:\n  patient: {}\n", "line 2: 'patient' is not a key here; the keys are patients,"),
    "a text for a mapping": ("datasets:\n  patients: PAT.csv\n", "line 2: should be keys with values"),
    "half a dataset": ("datasets:\n  patients: {files: x}\n", "line 2: patients needs `files` and `columns`, or `sql`"),
    "an unknown encoding": (PATIENTS.replace("windows-1252", "ansi-7"), "line 1: encoding 'ansi-7' is not an encoding"),
    "an unknown zone": ("time_zone: Paris\n" + PATIENTS, "line 1: time_zone 'Paris' is not a time zone"),
    "two separators": (PATIENTS.replace('";"', '";;"'), "line 2: separator ';;' is not a separator"),
    "another mark": (PATIENTS.replace('","', '"#"'), "line 3: decimal_mark '#' is not a decimal mark"),
    "an unknown pattern": (
        PATIENTS.replace("dd/MM/yyyy\n", "DD/MM/YYYY\n", 1),
        "line 4: dates .* has 'DD', which is none",
    ),
    "an open bracket": (PATIENTS.replace("[:ss]", "[:ss"), "line 5: timestamps .* opens a bracket"),
    "times in dates": (PATIENTS.replace("dates: dd/MM/yyyy", "dates: dd/MM/yyyy HH"), "line 4: dates .* has HH"),
    "a pattern without a year": (PATIENTS.replace("dates: dd/MM/yyyy", "dates: dd/MM"), "line 4: dates .* lacks yyyy"),
    "an unknown column": (
        PATIENTS.replace("gender:", "sex:"),
        "line 10: patients lacks gender|line 11: 'sex' is not a key",
    ),
    "a column left out": (PATIENTS.replace("      birth_date: DATE_NAISS\n", ""), "line 10: patients lacks birth_date"),
    "an unknown value": (PATIENTS.replace("02: F", "02: W"), "line 11: gender has no value 'W', which '02' stands for"),
    "as what": (PATIENTS.replace("as: timestamp", "as: date"), "line 13: `as` may be timestamp, and of a date"),
    "as for a text": (
        PATIENTS.replace("patient_id: N_DOSSIER", "patient_id: {from: X, as: timestamp}"),
        "line 10: `as`",
    ),
    "a value and a column": (PATIENTS.replace("N_DOSSIER", "{from: A, value: B}"), "line 10: patient_id needs `from`"),
    "an unknown key of a column": (PATIENTS.replace("N_DOSSIER", "{of: A}"), "line 10: 'of' is not a key here"),
    "no column": (PATIENTS.replace("N_DOSSIER", "[]"), "line 10: names no column"),
    "a folder above": (PATIENTS.replace("PAT_*.csv", "../PAT_*.csv"), "line 8: .* is not a pattern of files"),
    "SQL that is not there": (PATIENTS + BILLING, "line 15: sources/clinique/billing.sql is missing"),
    "SQL of elsewhere": (
        PATIENTS + BILLING.replace("billing.sql", "../x.sql"),
        "line 15: .* is not a file of sources/clinique/",
    ),
    "a table of that name": (
        PATIENTS + BILLING.replace("claims:", "Claims-1:"),
        "line 16: 'Claims-1' is not a name for a table",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_line(place, mistake):
    text, sentence = MISTAKES[mistake]
    told = said(declare, place, text)
    assert told.startswith("sources/clinique.yml") and told.endswith(".") and told.isprintable(), told
    with pytest.raises(Refused, match=sentence):
        declare(place, text)


def test_one_table_is_one_thing_in_all_sql(place):
    for name in ("billing", "treatments"):
        (place / "clinique" / f"{name}.sql").write_text("select 1")
    other = "  treatments:\n    sql: treatments.sql\n    tables: {claims: OTHER_*.csv}\n"
    assert "line 19: the table claims has other files in line 16" in said(declare, place, PATIENTS + BILLING + other)


def test_a_source_is_declared_once(place):
    declare(place)
    (place / "clinique.yaml").write_text(PATIENTS)
    assert "are two declarations of one source" in said(sources.load, "clinique")
    (place / "clinique.yml").unlink()
    assert "is not read; rename it to sources/clinique.yml." in said(sources.load, "clinique")
    assert said(sources.load, "klinik").startswith("sources/klinik.yml is missing;")
    assert "is not a name for a source" in said(sources.load, "../x")


def land(text, name="PAT_1.csv", encoding="windows-1252"):
    path = exports.folder(DAY, "clinique") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def read(source, text, **more):
    return exports.read(land(text, **more), "PAT_1.csv", source, source.by_dataset["patients"].used)


def test_a_file_is_counted_record_by_record(place):
    source = declare(place)
    file = read(
        source, HEADER + '1;1;01/02/1980;01/02/2030 10:00;"Saint-\nÉtienne;"\n\n \n2;1;;;\r\n3;;"open\nfor ever'
    )
    assert (file.records, file.spans, file.widest, file.header[-1]) == (3, True, 6, "VILLE")
    for line in ("1;1;;;Nîmes\n", "1;1;;;\x01\n", "\x1a", "N_DOSSIER;SEXE\n", '1;"1";;;\n'):
        assert not read(source, HEADER + line).spans
    assert not read(source, HEADER.replace("\n", "\r\n") + "1;1;;;\r\n2;1;;;\n3;1;;;\r\n").spans
    for line in ("1;1\r;;;\n", "1;1;;;\r\r\n", "1;1;;;\r"):
        assert read(source, HEADER + line).spans, "a reader of lines would end one at the return"
    for end in ("", "\n", "\r\n"):
        file = read(source, HEADER + "1;1;;;\n" + HEADER.strip() + end)
        assert (file.records, file.spans) == (2, True), "a reader of lines would leave it out with the header"
    assert read(source, "\n \n" + HEADER).records == 0


def test_a_file_is_sound_if_no_record_can_be_malformed(place):
    source = declare(place)
    assert read(source, HEADER + "1;1;;;Nîmes\r\n2;;;;").is_sound
    for line in ('1;1;;;"x"', "1;1;;", "1;1;;;;", "1;1;;;\0", ""):
        assert not read(source, f"{HEADER}3;1;;;\n{line}\n4;1;;;\n").is_sound, line


def test_a_file_is_the_same_in_whatever_pieces_it_is_read(place, monkeypatch):
    source = declare(place)
    text = HEADER + '1;1;;;Nîmes\n\n2;1;;;"a\nb";\n' + '3;"1";;;\n' * 3 + '4;1;;;"open\nto the end\n'
    whole = read(source, text)
    assert (whole.records, whole.spans, whole.widest, whole.quotes, whole.even) == (6, True, 6, True, False)
    for size in range(1, 80):
        monkeypatch.setattr("jobs.landing.CHUNK", size)
        assert read(source, text) == whole, size


def test_a_header_counts_as_a_record_does(place):
    """Spark's reader of records over lines reads the header, too."""
    source = declare(place)
    file = read(source, HEADER.strip() + ';"X\nY"\n')
    assert (file.records, file.spans, file.widest, file.header[-1]) == (0, True, 6, "X\nY")


# (the file, what is said of it)
BAD_FILES = {
    "nothing": (b"", "PAT_1.csv is empty, without even a header"),
    "a column that is not there": (
        HEADER.replace("SEXE", "GENRE"),
        "sources/clinique.yml line 11: PAT_1.csv has no column 'SEXE';",
    ),
    "one in lower case": (
        HEADER.replace("SEXE", "Sexe"),
        r"line 11: PAT_1.csv has no column 'SEXE' \(it has 'Sexe'\);",
    ),
    "a column twice": (HEADER.replace("VILLE", "SEXE"), "PAT_1.csv: the header names 'SEXE' twice"),
    "commas": (
        HEADER.replace(";", ","),
        "PAT_1.csv seems to be separated by commas; correct `separator` in sources/clinique.yml",
    ),
    "UTF-8": (
        (HEADER + "1;1;;;Orléans\n").encode(),
        "PAT_1.csv seems to be UTF-8, and sources/clinique.yml says windows-1252",
    ),
    "a byte of no letter": (
        HEADER.encode() + b"1;1;;;A\n2;1;;;\x81\n",
        "^line 3 of PAT_1.csv holds bytes that are not windows-1252",
    ),
    "UTF-16": (HEADER.encode("utf-16"), "PAT_1.csv seems to be UTF-16"),
    "a workbook": (b"PK\x03\x04" + b"x" * 50, r"PAT_1.csv is a ZIP archive \(an Excel workbook\?\), and not text"),
    "sep=": ("sep=;\n" + HEADER, "PAT_1.csv begins with a spreadsheet's line `sep=`"),
    "returns for line ends": (
        HEADER.strip() + "\rOrl;1;;;A\rOrl;2;;;B\r",
        "PAT_1.csv: the header holds a carriage return",
    ),
    "a quote left open in the header": (
        HEADER.strip() + ';"X\nOrl;1;;;A;\n',
        "PAT_1.csv: the header leaves a quote open; correct the file",
    ),
    "a NUL in the header": (HEADER.strip() + ";X\0\n", "PAT_1.csv: the header holds NUL characters; correct the file"),
    "white space before the header": (
        "\xa0\n" + HEADER + "1;1\r;;;\n",
        "PAT_1.csv begins with a line of white space; remove that line",
    ),
    "a line of blanks before records over lines": (
        " \n" + HEADER + '1;1;;;"A\nB"\n',
        "PAT_1.csv begins with a line of white space; remove that line",
    ),
    "a quote left open": (HEADER + '1;1;;;"' + "x\n" * 40_000, "the record that begins in line 2 leaves a quote open"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_not_as_declared_is_refused_in_one_sentence(place, name):
    text, sentence = BAD_FILES[name]
    source = declare(place)
    told = said(read, source, text)
    assert told.isprintable() and "Orl" not in told and len(told) < 250, told
    with pytest.raises(Refused, match=sentence):
        read(source, text)


def test_windows_bytes_in_a_file_of_utf_8_are_told_with_their_line(place):
    source = declare(place, PATIENTS.replace("windows-1252", "utf-8"))
    told = said(read, source, HEADER + "1;1;;;A\n2;1;;;Orléans\n")
    assert told.startswith("line 3 of PAT_1.csv holds bytes that are not UTF-8, it seems to be Windows-1252;")
    assert read(source, "\ufeff" + HEADER + "1;1;;;Orléans\n", encoding="utf-8").header[0] == "N_DOSSIER"


def test_a_column_lacking_in_utf_16_is_told_as_in_any_other_encoding(place):
    source = declare(place, PATIENTS.replace("windows-1252", "utf-16"))
    text = HEADER.replace("SEXE", "Sexe").encode("utf-16")
    assert "line 11: PAT_1.csv has no column 'SEXE' (it has 'Sexe')" in said(read, source, text)


def test_a_date_comes_by_one_source_or_by_the_five_files(place):
    declare(place)
    assert "has no folder of a source" in said(exports.source_of, DAY) and not exports.folders(DAY)
    path = land(HEADER)
    source = exports.source_of(DAY)
    assert list(exports.paths(DAY, source)) == ["PAT_1.csv"] and list(exports.landed_days()) == [DAY]
    assert [type(task).__name__ for task in BronzeIngestion(date=DAY).requires()] == ["Conversion"]
    [table] = source.by_dataset["patients"].tables
    assert "line 8: 'PAT_*.csv' finds no file in 2031/05/06/clinique ('pat_1.CSV' differs" in said(
        exports.matching, table, ["pat_1.CSV"], source, DAY
    )
    assert "has a name that Spark cannot read" in said(exports.matching, table, ["PAT_{1}.csv"], source, DAY)
    own = path.parent.parent / "visits.csv"
    own.write_text("")
    assert (
        "has the folder clinique and the files visits.csv; the files of a date come from a source or are the "
        in said(exports.source_of, DAY)
    )
    own.unlink()
    (place / "other.yml").write_text(PATIENTS)
    (path.parent.parent / "other").mkdir()
    assert "has folders of clinique and other; a date has one source" in said(exports.source_of, DAY)


def test_a_folder_that_nobody_declared_is_asked_about_only_where_no_file_of_ours_came(place):
    land(HEADER)
    assert "sources/clinique.yml is missing" in said(exports.source_of, DAY)
    (exports.folder(DAY, "clinique").parent / "visits.csv").write_text("")
    assert exports.folders(DAY) == []


@pytest.mark.parametrize(
    ("pattern", "text", "ours"),
    [
        ("dd/MM/yyyy HH:mm[:ss]", "05/11/1980 10:20", "1980-11-05T10:20:"),
        ("dd.MM.yyyy[ HH:mm]", "05.11.1980", "1980-11-05T::"),
        ("yyyyMMddHHmmss", "19801105102030", "1980-11-05T10:20:30"),
        ("yyyy-MM-dd'T'HH:mm", "1980-11-05T10:20", "1980-11-05T10:20:"),
        ("yyyy-MM-dd HH:mm:ss.SSS", "1980-11-05 10:20:30.125", "1980-11-05T10:20:30.125"),
    ],
)
def test_a_pattern_is_a_regular_expression(pattern, text, ours):
    import re

    read = patterns.read_pattern(pattern, with_time=True)
    groups = [group or "" for group in re.fullmatch(read.regex, text).groups()]
    assert re.sub(r"\$([1-7])", lambda found: groups[int(found[1]) - 1], read.template) == ours


def test_the_forms_of_a_pattern_have_the_order_of_its_regular_expression():
    forms = patterns.read_pattern("yyyyMMdd[HH][mm[ss]]", with_time=True).forms
    assert [form.bytes for form in forms] == [14, 12, 10, 12, 10, 8]
    assert [form.places.get("HH", form.places.get("mm")) for form in forms] == [9, 9, 9, 9, 9, None]
    assert patterns.read_pattern("dd 'à' MM.yyyy", with_time=False).forms == (
        patterns.Form(r"^[0-9]{2}\ à\ [0-9]{2}\.[0-9]{4}$", 13, {"dd": 1, "MM": 6, "yyyy": 9}),
    )
    with pytest.raises(ValueError, match="stands for more than 64 patterns"):
        patterns.read_pattern("yyyyMMdd" + "".join(f"[{sign}]" for sign in "/-.:,;#"), with_time=False)


def test_the_record_of_a_key_is_found_in_the_sources_file(place):
    source = declare(place)
    mapping = source.by_dataset["patients"]
    lines = (HEADER + 'P1;1;;;"a\nb"\n"P2";1;;;P1\n P1 ;1\n\nP11;;;;\n').splitlines(keepends=True)
    found = [*exports.find(iter(lines), "P1", source, mapping, "patient_id")]
    assert found == [2, 5], "the lines in which they begin, of those whose key it is"
    lines = (HEADER + '"P""1";1;;;\n').splitlines(keepends=True)
    assert [*exports.find(iter(lines), 'P"1', source, mapping, "patient_id")] == [2]


def test_the_shipped_example_is_sound_and_written_as_declared(tmp_path, monkeypatch):
    from jobs.generate import generate

    monkeypatch.setenv("SOURCES_DIR", str(settings.ROOT / "sources"))
    source = sources.load("example")
    assert {*source.by_dataset} == {"patients", "visits", "admissions", "treatments", "billing"}
    start = date(2026, 1, 1)
    generate(start, tmp_path, 0.02, 3, start)
    written = example_export.write_export(start, tmp_path / folder(start), tmp_path / "example")
    for name, records in written.items():
        used = next(
            m.used for m in source.mappings if any(t.files.split("_")[0] == name.split("_")[0] for t in m.tables)
        )
        file = exports.read(tmp_path / "example" / name, name, source, used)
        assert file.records == records
    with (tmp_path / folder(start) / "billing.csv").open() as ours:
        assert written["RECHNUNG_20260101.csv"] == len([*csv.reader(ours)]) - 1


def test_the_example_lands_alone_and_not_beside_our_own_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    arguments = [str(DAY), "--start", str(DAY), "--scale", "0.02"]
    example_export.main(arguments)
    landed = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [line.partition(": ")[0] for line in sorted(capsys.readouterr().out.splitlines())] == [*map(str, landed)]
    assert {path.parent for path in landed} == {exports.folder(DAY, "example")} and len(landed) == 6
    (tmp_path / folder(DAY) / "visits.csv").touch()
    with pytest.raises(SystemExit):
        example_export.main(arguments)
    assert "2031/05/06 already has visits.csv" in capsys.readouterr().err


def test_the_shipped_sample_of_synthea_is_as_its_declaration_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCES_DIR", str(settings.ROOT / "sources"))
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    source = sources.load("synthea")
    assert {*source.by_dataset} == {"patients", "visits", "admissions", "treatments", "billing"}
    synthea_export.main([str(DAY)])
    names = [*exports.paths(DAY, source)]
    for mapping in source.mappings:
        for table in mapping.tables:
            [name] = exports.matching(table, names, source, DAY)
            file = exports.read(exports.folder(DAY, "synthea") / name, name, source, mapping.used)
            assert file.records > 50 and not file.spans
    classes = dict(dict(source.by_dataset["visits"].columns)["visit_type"].values)
    with (exports.folder(DAY, "synthea") / "encounters.csv").open() as encounters:
        assert {each["ENCOUNTERCLASS"] for each in csv.DictReader(encounters)} <= classes.keys()


def test_a_sample_does_not_land_beside_other_files_of_its_date(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOURCES_DIR", str(settings.ROOT / "sources"))
    monkeypatch.setenv("LANDING_DIR", str(tmp_path))
    exports.folder(DAY, "example").mkdir(parents=True)
    with pytest.raises(SystemExit):
        synthea_export.main([str(DAY)])
    assert "2031/05/06 already has example" in capsys.readouterr().err
    assert not exports.folder(DAY, "synthea").exists()
