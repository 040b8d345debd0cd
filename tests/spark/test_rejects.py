"""Checks `make rejects`, `make why` and `make export-rejects`, and the return of a corrected file."""

import csv
import stat
from datetime import timedelta

import pytest

from jobs import landing, reject_counts, reject_export
from jobs.catalog import CATALOG
from tests.flow.test_flow import call


def command(*words):
    done = call("-m", "jobs.rejects", *map(str, words))
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def test_a_key_tells_its_whole_story(hospital):
    day, key, lacked = hospital.day(1), hospital.key("V1"), hospital.key("P1")
    hospital.validate("visits", 1, hospital.row("visits", "V1", department="Dermatology"))
    code, told = command("why", f" {key} ")
    assert code == 0
    head, file, checksum, verdict, reason, waits, gold = told.splitlines()
    assert head == f"visits {key}"
    path = landing.landing_path(CATALOG["visits"], day)
    assert f"healthcare-bronze/visits/{day:%Y/%m/%d}/visits.csv, {path.stat().st_size} bytes, came 20" in file
    assert checksum.strip() == f"sha256 {landing.checksum(path)}"
    assert "rejected: orphan_patient_id  (run 20" in verdict
    assert reason.strip() == "orphan_patient_id: patient_id must be the key of an accepted row of patients"
    assert waits.strip() == (
        f"patient_id {lacked}: has not come; retryable: its parent may come up to {day + timedelta(days=365)}"
    )
    assert gold == "  gold: no version of it"

    hospital.validate("patients", 2, hospital.row("patients", "P1", city=""), hospital.row("patients", "P2", gender=""))
    told = command("why", key)[1]
    assert "due to be revalidated: parents came or went" in told
    assert f"{lacked}: has come since, with {hospital.day(2)}; the next run validates this date again" in told

    assert hospital.revalidate() == [("visits", day)]
    hospital.load("visits", 1)
    hospital.validate(
        "visits", 3, hospital.row("visits", "V1", status=""), hospital.row("visits", "V1", patient_id="P?")
    )
    lines = command("why", key)[1].splitlines()
    verdicts = [line.strip().partition("  (run")[0] for line in lines if "  (run" in line]
    assert verdicts[:3] == ["accepted", "rejected: missing_status", "rejected: orphan_patient_id"]
    assert verdicts[3].startswith(f"gold: the version of {day}, loaded 20")
    assert lines[-1].strip() == f"its patient_id is {lacked}, 0 admissions, 0 billing, 0 treatments"
    assert "Dermatology" not in told + "".join(lines), "values are nobody's business but a key's"
    told = command("why", lacked)[1]
    assert "    1 visits" in told.splitlines() and "missing_gender" not in told


def test_of_versions_that_differ_it_is_told_which_stands_and_in_what_they_differ(hospital):
    from jobs.bronze_to_silver import bronze_to_silver
    from jobs.gold_to_marts import gold_to_marts

    day, unpaid = hospital.day(1), {"payment_status": "Pending", "payment_ts": ""}

    def bill(key, total, **changes):
        return hospital.row("billing", key, total_amount=total, insurance_amount="", **changes)

    visit = hospital.row("visits", "V1", visit_start_ts=f"{day}T10:00", visit_end_ts=f"{day}T11:00")
    assert "warn: " not in hospital.validate(
        "patients", 1, *[hospital.row("patients", "P1", gender=g) for g in ("F", "f")]
    )
    said = hospital.validate("visits", 1, visit | {"status": "No-show"}, visit)
    assert f"warn: visits {day}: 1 key comes in versions that differ" in said
    bills = [
        bill("B1", "250", **unpaid),
        bill("B1", "250"),
        bill("B1", "+250.004", payment_status=" pAID", payment_ts="2026-01-20T13:00+01:00"),
        bill("B1", "250", payment_status="Waived"),
        bill("B2", "300", **unpaid),
        bill("B2", "280"),
        *(bill(key, "250") for key in ("B3", "B3")),
        bill("B4", "350"),
        bill("B5", "70", **unpaid),
    ]
    warning = (
        f"warn: billing {day}: 2 keys come in versions that differ, of which the fullest stands: "
        f"`make rejects DATE={day} DATASET=billing KEYS=1` names them under duplicate_bill_id, `make why KEY=...` "
        "tells in what they differ"
    )
    assert hospital.validate("billing", 1, *bills).splitlines()[1:] == [warning]
    assert bronze_to_silver(CATALOG["billing"], day).splitlines()[1:] == [warning], "also where nothing has changed"
    kept = hospital.postgres.execute(
        "select warnings from ops.ledger where layer = 'silver' and dataset = 'billing' and partition_date = %s", [day]
    )
    assert [row[0] for row in kept] == [warning] * 2

    lines = command("why", hospital.key("B1"))[1].splitlines()
    found = [line.strip().partition("  (run")[0] for line in lines if line.startswith("    ")]
    duplicate = ["rejected: duplicate_bill_id", "duplicate_bill_id: another row with this bill_id stands in this file"]
    assert sorted(found[1:]) == sorted(
        [
            "accepted",
            *duplicate,
            "has the values of the version that stands; at most it is written differently",
            *duplicate,
            "differs from the version that stands in payment_status, payment_ts",
            "rejected: unknown_payment_status",
            "unknown_payment_status: payment_status must be one of Paid, Pending, Partial",
        ]
    )
    assert found[1] == "accepted"
    [difference] = [line for line in command("why", hospital.key("B2"))[1].splitlines() if "differs" in line]
    assert difference == "      differs from the version that stands in total_amount, payment_status, payment_ts"
    assert "differs" not in command("why", hospital.key("B3"))[1]

    for name in ("patients", "visits", "billing"):
        hospital.load(name, 1)
    gold_to_marts(day)
    figures = hospital.postgres.execute(
        "select completed_visits, paid_bills, pending_bills, payment_rate_pct, total_revenue "
        "from mart_daily_kpis where kpi_date = %s",
        [day],
    )
    assert [tuple(map(float, row)) for row in figures] == [(1, 4, 1, 80, 1200)]


def test_versions_of_other_dates_are_not_compared(hospital):
    hospital.validate("patients", 1, hospital.row("patients", "P1"))
    hospital.validate(
        "patients", 2, hospital.row("patients", "P1", city=""), hospital.row("patients", "P1", gender="?")
    )
    assert "version that stands" not in command("why", hospital.key("P1"))[1]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["why", "V404-1999"], 1, "no file that was validated holds a row with the key V404-1999"),
        (["why", "\u2003"], 1, "no key is given"),
        (["show", "1999-01-01"], 1, "1999-01-01 has not been validated"),
        (["show", "1999-02-30"], 2, "is not a date"),
        (["export", "1999-01-01", "--dataset", "visits"], 1, "visits of 1999-01-01 has not been validated"),
    ],
)
def test_what_there_is_not_is_said_in_a_sentence(stack, words, code, sentence):
    returned, told = command(*words)
    assert returned == code and sentence in told and len(told.splitlines()) == 1


def test_rejects_are_counted_by_reason_and_held_against_earlier_dates(hospital):
    hospital.year = 1960  # before the dates of other tests, which reject for the same reasons
    sound = [hospital.row("patients", f"P{n}") for n in range(20)]
    hospital.validate("patients", 1, *sound, hospital.row("patients", "P20", city="", gender="?"))
    broken = [hospital.row("patients", f"P{n}", gender="", birth_date="?") for n in range(15, 20)]
    hospital.validate(
        "patients", 2, *sound[:15], *broken, {**hospital.row("patients", ""), "patient_id": "", "gender": ""}
    )
    code, told = command("show", hospital.day(2), "--dataset", "patients", "--keys")
    assert code == 0
    head, columns, *lines = told.splitlines()
    assert head == f"patients {hospital.day(2)}: 21 rows = 15 accepted + 6 rejected (28.57 %)"
    found = {lines[n].split()[0]: (lines[n].split("  "), lines[n + 1].strip()) for n in range(0, len(lines), 2)}
    keys = ", ".join(hospital.key(f"P{n}") for n in range(15, 20))
    assert list(found) == ["missing_gender", "unreadable_birth_date", "missing_patient_id"]
    assert found["missing_gender"][1] == f"{keys}, 1 without a key that can be read"
    assert found["unreadable_birth_date"][1] == keys
    assert "new" in [word.strip() for word in found["missing_gender"][0]], columns
    for other in ("visits", "billing"):
        assert other not in told


@pytest.mark.parametrize(
    ("hits", "rows", "usual", "words"),
    [
        (5, 100, None, "no earlier date"),
        (5, 100, 0.0, "new"),
        (0, 100, 0.0, "as usual"),
        (5, 100, 0.03, "as usual"),
        (2, 100, 0.001, "as usual"),
        (9, 100, 0.03, "3.0 times usual"),
        (0, 100, 0.05, "0.0 times usual"),
        (0, 0, 0.05, "as usual"),
    ],
)
def test_a_trend_is_told_in_words(hits, rows, usual, words):
    assert reject_counts.trend(hits, rows, usual) == words


def test_what_a_spreadsheet_would_take_for_a_formula_is_text():
    texts = ["=1+1", "+1+1", "-1-1", "@a", "\tx", "\rx", "＝1", "-1", "+2.50", "-", "a=b", " =1", ""]  # noqa: RUF001
    assert [reject_export.as_text(text) == f"'{text}" for text in texts] == [True] * 7 + [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert [reject_export.as_text(text).removeprefix("'") for text in texts] == texts
    assert [reject_export.as_text(text) for text in ("-.5", "+.25", "-.", "-.5.")] == ["-.5", "+.25", "'-.", "'-.5."]


def test_an_export_is_written_whole_or_not_at_all(tmp_path):
    def rows(fails):
        yield ["a", "b"]
        yield ["1", "two\nlines"]
        if fails:
            raise OSError("the store is gone")

    path = tmp_path / "2026" / "visits.csv"
    with pytest.raises(OSError):
        reject_export.write_whole(path, rows(fails=True))
    assert list(path.parent.iterdir()) == []
    assert reject_export.write_whole(path, rows(fails=False)) == 1
    assert [each.name for each in path.parent.iterdir()] == ["visits.csv"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == b'a,b\r\n1,"two\nlines"\r\n'


def test_exported_rejects_that_come_back_corrected_are_restated_by_the_ordinary_run(hospital, tmp_path):
    from jobs.bronze_to_silver import bronze_to_silver

    day, names = hospital.day(1), ["note", *CATALOG["patients"].names, "", ""]  # two columns without a name
    changes = {
        "P1": {"note": "=1+1", "gender": "X", "city": 'Spring, "field"'},
        "P2": {"note": "-5", "gender": " ", "birth_date": "@now", "city": ""},
        "P3": {"note": "fine"},
    }
    sent = {hospital.key(key): hospital.row("patients", key) | change for key, change in changes.items()}
    for name in CATALOG:
        hospital.land(name, 1)
    path = landing.landing_path(CATALOG["patients"], day)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(sent.values())
        file.write("short,P4\r\n")
    hospital.bronze("patients", 1)
    bronze_to_silver(CATALOG["patients"], day)
    hospital.load("patients", 1)
    assert hospital.gold("patients") == [(hospital.key("P3"),)]

    code, told = command("export", day, "--to", tmp_path / "out")
    export = tmp_path / "out" / f"{day:%Y/%m/%d}" / "patients.csv"
    assert (code, told) == (0, f"patients {day}: 3 rejected rows in {export}\n")
    with export.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*names, "_reject_reason", "_reject_messages", "_record"]
    by_key = {row[1]: row for row in rows}
    as_sent = {key: [sent[key].get(name, "") for name in names] for key in sent}
    one, other = hospital.key("P1"), hospital.key("P2")
    of_gender = "gender must be one of M, F, Other, Unknown"
    assert by_key[one] == ["'=1+1", *as_sent[one][1:], "unknown_gender", of_gender, ""]
    fields = [*as_sent[other][:3], "'@now", *as_sent[other][4:]]
    of_row = "gender must not be blank; birth_date must be a date"
    assert by_key[other] == [*fields, "missing_gender;unreadable_birth_date", of_row, ""]
    of_record = "the record has too few or too many fields, an open quote or a NUL character"
    assert by_key[""] == [*[""] * len(names), "malformed_row", of_record, "short,P4"] and len(rows) == 3

    with path.open("w", newline="") as file:  # the owner's correction; P3 was never a patient
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([*by_key[key][:2], "F", "1980-02-29", *by_key[key][4:8]] for key in (one, other))
    done = call("-m", "pipelines", "run", str(day))
    assert done.returncode == 0 and "current" not in done.stdout
    assert hospital.gold("patients", "patient_id", "city") == [(one, 'Spring, "field"'), (other, None)]
    code, told = command("show", day, "--dataset", "patients")
    assert (code, told) == (0, f"patients {day}: 2 rows = 2 accepted + 0 rejected\n")
