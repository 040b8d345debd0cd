"""Checks what is warned of when a file arrives, and that a file that changes meanwhile leaves nothing behind."""

import pytest

from jobs.catalog import CATALOG
from jobs.program import Refused


def test_a_file_of_unusual_size_is_reported_when_it_comes(hospital):
    from jobs.arrival import unusual
    from jobs.ledger import usual_rows

    patients, hospital.year = CATALOG["patients"], 1950  # before the dates of all other tests
    rows = [hospital.row("patients", f"P{n}") for n in range(60)]
    for number in (1, 8, 15):
        hospital.land("patients", number, *rows[:-1], hospital.row("patients", "P60", city=f"City {number}"))
        assert hospital.bronze("patients", number).count("\n") == 0
    hospital.land("patients", 22, *rows[:29])
    assert "warn: patients" in hospital.bronze("patients", 22)
    [*_, (warning,)] = hospital.ledger("bronze", "patients", "warnings")
    assert warning == "29 rows, where 3 earlier dates of its weekday have a median of 60"
    usual = usual_rows(hospital.postgres, patients, hospital.day(22))
    assert [unusual(n, patients, *usual) for n in (30, 60, 120)] == [None] * 3
    assert unusual(121, patients, *usual) and not unusual(121, patients, 2, 60.0)


def test_a_file_that_is_another_dates_very_file_is_taken_with_a_warning(hospital):
    def lands(number, *keys, dataset="patients"):
        """Lands a file with rows of these keys; returns the printed warnings and those in the ledger."""
        hospital.land(dataset, number, *(hospital.row(dataset, key) for key in keys))
        _, *warnings = hospital.bronze(dataset, number).splitlines()
        return warnings, hospital.ledger("bronze", dataset, "warnings")[-1][0]

    assert lands(1, "P1", "P2") == lands(2, "P1") == lands(1, "V1", dataset="visits") == ([], None)
    said = (
        f"the very file of {hospital.day(1)}; if it was sent by mistake, put the right file in its place and run the "
        "date again"
    )
    [warning], noted = lands(3, "P1", "P2")
    assert warning.partition(" (")[0] == f"warn: patients {hospital.day(3)}: {said}" and noted == said
    assert lands(3, "P1", "P2") == lands(1, "P1", "P2") == ([], None), "the same date again is not another"
    [warning], _ = lands(4, "P1", "P2")
    assert f"the very file of {hospital.day(3)} and {hospital.day(1)};" in warning
    assert lands(1, "P3") == lands(3, "P4") == ([], None)
    [warning], _ = lands(5, "P1", "P2")
    assert f"the very file of {hospital.day(4)};" in warning, "the files of days 1 and 3 were replaced since"
    assert lands(6) == lands(7) == ([], None), "a header alone says nothing"


def test_several_warnings_about_a_file_are_all_told(hospital):
    hospital.year = 1951  # before the dates of all other tests
    rows = [hospital.row("patients", f"P{n}") for n in range(60)]
    for number, of in {1: rows, 8: rows[:59], 15: rows[:58], 16: rows[:20]}.items():
        hospital.land("patients", number, *of)
        assert hospital.bronze("patients", number).count("\n") == 0
    hospital.land("patients", 22, *rows[:20])
    said = hospital.bronze("patients", 22).splitlines()
    assert [line.startswith(f"warn: patients {hospital.day(22)}: ") for line in said] == [False, True, True]
    [*_, (warnings,)] = hospital.ledger("bronze", "patients", "warnings")
    assert warnings.startswith(
        "20 rows, where 3 earlier dates of its weekday have a median of 59; the very file of 1951"
    )


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(hospital, monkeypatch):
    from jobs import bronze_files, landing, ledger

    hospital.land("patients", 1, hospital.row("patients", "P1"))
    real, path = bronze_files.upload, landing.landing_path(CATALOG["patients"], hospital.day(1))

    def late(*words):
        with path.open("ab") as file:
            file.write(b"P2")
        return real(*words)

    monkeypatch.setattr(bronze_files, "upload", late)
    with pytest.raises(Refused, match=f"{hospital.year}/01/01/patients.csv changed while it was read;"):
        hospital.bronze("patients", 1)
    monkeypatch.setattr(bronze_files, "upload", lambda path, *words: (path.unlink(), real(path, *words)))
    with pytest.raises(FileNotFoundError):
        hospital.bronze("patients", 1)
    assert bronze_files.bronze_head(CATALOG["patients"], hospital.day(1)) is None
    assert ledger.marker("bronze", "patients", hospital.day(1)) is None
    (_, changed), (outcome, vanished) = hospital.ledger("bronze", "patients", "outcome", "error")
    assert outcome == "failed" and "changed while it was read" in changed
    assert vanished.startswith(f"{hospital.year}/01/01/patients.csv cannot be read (no such file or directory);")
