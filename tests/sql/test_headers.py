"""Tests that a change of a source's columns is reported against its last date, from the ledger."""

from datetime import date, timedelta
from types import SimpleNamespace

from jobs import headers, preview
from jobs.derivation import Export
from jobs.exports import RawFile

DAY = date(2031, 5, 6)


def keep(warehouse, day, run_id, header, source="clinique"):
    """Keeps a file of a date whose conversion is current."""
    receipt = "insert into ops.receipts (layer, dataset, partition_date, run_id, made_from, rule_set) "
    warehouse.execute(f"{receipt} values ('source', %s, %s, %s, '', '')", [source, day, run_id])
    warehouse.execute(
        "insert into ops.source_files "
        "(run_id, source_name, partition_date, file_name, sha256, bytes, datasets, header) "
        "values (%s, %s, %s, 'PAT_1.csv', '', 0, 'patients', %s)",
        [run_id, source, day, header],
    )


def export(*headers, source="clinique"):
    files = [
        RawFile(f"PAT_{n}.csv", "", 0, "", header, 1, False, 1, False, True) for n, header in enumerate(headers, 2)
    ]
    return Export(SimpleNamespace(name=source), DAY, {}, {}, {"PAT_*.csv": files})


def test_the_last_date_of_the_source_before_this_one_counts(empty_warehouse, tmp_path, monkeypatch):
    warehouse = empty_warehouse
    assert headers.warnings(warehouse, export(("ID", "SEXE"))) == []
    keep(warehouse, DAY - timedelta(days=9), "older", ["ID"])
    keep(warehouse, DAY - timedelta(days=2), "last", ["ID", "SEXE", "X"])
    keep(warehouse, DAY + timedelta(days=1), "later", ["ID", "Y"])
    keep(warehouse, DAY - timedelta(days=1), "other", ["Z"], source="other")
    last = DAY - timedelta(days=2)
    assert headers.warnings(warehouse, export(("ID", "SEXE", "X"))) == []
    assert headers.warnings(warehouse, export(("ID", "SEXE", "Y"))) == [
        f"since {last} PAT_*.csv: column 'X' is missing and PAT_*.csv: column 'Y' is new"
    ]
    # Files of one pattern may have different headers.
    assert headers.warnings(warehouse, export(("ID", "SEXE", "X", "Y"), ("ID",))) == [
        f"since {last} PAT_*.csv: column 'Y' is new"
    ]

    copied = []
    store = SimpleNamespace(download_file=lambda bucket, key, path: copied.append(key))
    monkeypatch.setattr(preview.object_store, "s3", lambda: store)
    assert preview.fetch_last(warehouse, SimpleNamespace(name="clinique"), DAY, tmp_path) == last
    assert copied == ["_sources/clinique/2031/05/04/PAT_1.csv"]
    assert preview.fetch_last(warehouse, SimpleNamespace(name="none"), DAY, tmp_path) is None
