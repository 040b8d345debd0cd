"""Processes the same date with pandas: `python -m benchmarks.pandas_peer 2026-01-01` on a running stack.

Follows the platform's predecessor, as an experienced pandas user would write it: Arrow's CSV reader and strings, rules
on whole columns, psycopg2's execute_values with `insert ... on conflict do update`, and marts by groupby.
"""

import io
import re
import warnings
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from psycopg2.extras import execute_values

from benchmarks import peer
from jobs.catalog import CATALOG
from jobs.dataset import WHITE_SPACE, Column, Dataset
from jobs.object_store import s3

DATE = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}"
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-7]):[0-5][0-9]|18:00))"
PLAIN_DECIMAL = r"-?[0-9]{1,10}(?:\.[0-9]{1,2})?"
DECIMAL = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
STRING = pd.ArrowDtype(pa.string())
TIMES = ["birth_date", "registration_date", "visit_start_ts", "visit_end_ts", "admit_ts", "discharge_ts"]
PAGE = 10_000  # rows per statement

# Rejection reason -> condition that a row must meet; a missing value passes.
RULES = {
    "birth_after_registration": lambda r: r.birth_date <= r.registration_date,
    "visit_end_not_after_start": lambda r: r.visit_end_ts > r.visit_start_ts,
    "discharge_not_after_admit": lambda r: r.discharge_ts > r.admit_ts,
    "negative_treatment_cost": lambda r: r.treatment_cost >= 0,
    "negative_total_amount": lambda r: r.total_amount >= 0,
    "negative_patient_amount": lambda r: r.patient_amount >= 0,
    "insurance_exceeds_total": lambda r: r.insurance_amount <= r.total_amount,
    "paid_without_payment_ts": lambda r: (r.payment_status != "Paid") | r.payment_ts.notna(),
}
# columns that let a row pass if missing, where not all of the rule's columns do
PASSES_EMPTY = {"paid_without_payment_ts": ["payment_status"]}


class Validated(NamedTuple):
    """Holds the accepted and the rejected rows; every record is in exactly one of them."""

    accepted: pd.DataFrame
    rejected: pd.DataFrame


def read(data: bytes, dataset: Dataset) -> tuple[pd.DataFrame, list[str]]:
    """Returns the fields of well-formed records as text, and the texts of malformed records."""
    header, skipped = peer.read_header(data, dataset), list[tuple[int, str]]()
    # An unclosed quote swallows the rest of the file; closing it makes the rest the last record.
    is_open = data.count(b'"') % 2 == 1

    def keep(row: Any) -> str:
        skipped.append((row.number or 0, row.text))
        return "skip"

    table = pyarrow.csv.read_csv(
        io.BytesIO(data + b'"' if is_open else data),
        pyarrow.csv.ReadOptions(column_names=header, skip_rows=1, use_threads=not is_open, block_size=8 << 20),
        pyarrow.csv.ParseOptions(newlines_in_values=b'"' in data, invalid_row_handler=keep),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), null_values=[]),
    )
    texts = table.select(list(dataset.names)).to_pandas(types_mapper=lambda _: STRING)
    malformed = [text for _, text in skipped if text.strip(WHITE_SPACE)]
    if is_open and not (skipped and skipped[-1][0] == 1 + len(texts) + len(skipped)):
        last = texts.iloc[-1]
        if not last.iloc[-1].endswith('"'):  # otherwise the odd quote is inside a field, where it has no meaning
            malformed.append(",".join(last))
            texts = texts.iloc[:-1]
    if b"\0" in data:
        has_nul = np.any([mask(texts[name].str.contains("\0", regex=False)) for name in dataset.names], axis=0)
        malformed += [",".join(row) for row in texts[has_nul].itertuples(index=False)]
        texts = texts[~has_nul]
    return texts, malformed


def validate(texts: pd.DataFrame, malformed: list[str], dataset: Dataset, parents: dict[str, pd.Series]) -> Validated:
    """Validates rows by all rules of the dataset; `parents` holds the accepted keys per foreign key column."""
    trimmed = {name: texts[name].str.strip(WHITE_SPACE) for name in dataset.names}
    trimmed = {name: text.mask(text == "") for name, text in trimmed.items()}
    rows = pd.DataFrame({column.name: value_of(column, trimmed[column.name]) for column in dataset.columns})
    codes: dict[str, np.ndarray] = {}
    for column in dataset.columns:
        text, value = trimmed[column.name], rows[column.name]
        unread = mask(text.notna() & value.isna())
        if column.required:
            codes[f"missing_{column.name}"] = mask(text.isna())
        if column.type != "text":
            codes[f"unreadable_{column.name}"] = unread
        if column.one_of:
            codes[f"unknown_{column.name}"] = unread
        if column.references:
            codes[f"orphan_{column.name}"] = mask(text.notna() & ~text.isin(parents[column.name]))
    for rule in dataset.rules:
        validated = np.ones(len(rows), bool)
        for name in rule.columns:
            validated &= mask(trimmed[name].isna() | rows[name].notna())
        for name in PASSES_EMPTY.get(rule.reason, rule.columns):
            validated &= mask(rows[name].notna())
        codes[rule.reason] = validated & ~mask(RULES[rule.reason](rows))
    sound = ~np.any(list(codes.values()), axis=0)
    codes[f"duplicate_{dataset.key}"] = duplicates(rows, sound, dataset)
    faulty = ~sound | codes[f"duplicate_{dataset.key}"]
    reasons = pd.Series("", index=texts.index[faulty])
    for code, broken in codes.items():
        reasons[broken[faulty]] += f"{code};"
    rejected = texts[faulty].mask(texts[faulty] == "").assign(_raw=pd.NA, _reject_reason=reasons.str.rstrip(";"))
    alone = pd.DataFrame({"_raw": malformed, "_reject_reason": "malformed_row"}).reindex(columns=rejected.columns)
    return Validated(rows[~faulty], pd.concat([rejected.astype(STRING), alone.astype(STRING)], ignore_index=True))


def duplicates(rows: pd.DataFrame, sound: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Marks superseded versions of a key: all but the one with most values, then highest rank, latest, greatest."""
    again = sound.copy()
    again[sound] = rows.loc[sound, dataset.key].duplicated(keep=False)
    versions, columns = rows[again], dataset.columns[1:]
    known = versions.copy()
    for column in columns:
        if column.not_known:
            known[column.name] = known[column.name].mask(mask(known[column.name] == column.not_known))
    ranks = {f"{column.name} rank": -versions[column.name].map(column.ranks) for column in columns if column.ranks}
    times = [column.name for column in columns if column.is_time]
    others = [column.name for column in columns if not column.is_time]
    ordered = versions.assign(known=known.notna().sum(axis=1), **ranks)
    ordered = ordered.sort_values(["known", *ranks, *times, *others], ascending=False, kind="stable")
    losers = ordered.index[ordered[dataset.key].duplicated()]
    return np.isin(rows.index, losers)


def value_of(column: Column, text: pd.Series) -> pd.Series:
    """Returns a column's typed values from trimmed text; missing if blank, unreadable or not a listed value."""
    if column.one_of:
        return text.str.lower().map({value.lower(): value for value in column.one_of}).astype(STRING)
    if column.type in ("date", "timestamp"):
        form = DATE if column.type == "date" else f"{DATE}[T ]{TIME}{ZONE}?"
        return read_times(text.where(mask(text.str.fullmatch(form))))
    if column.type == "decimal":
        return read_decimals(text)
    return text


def read_times(text: pd.Series) -> pd.Series:
    """Parses timestamps to UTC; leaves those outside the range of pandas' nanoseconds to datetime."""
    zoned = mask(text.str.contains(f"{ZONE}$"))
    times = pd.to_datetime(text.mask(zoned), format="ISO8601", errors="coerce").astype("datetime64[us]")
    if zoned.any():  # parsed separately: pandas gives a time without a zone the zone of the one before
        there = pd.to_datetime(text[zoned], format="ISO8601", errors="coerce", utc=True)
        times[zoned] = there.dt.tz_localize(None).astype("datetime64[us]")
    for place in np.flatnonzero(times.isna() & text.notna()):
        parts = re.fullmatch(rf"({DATE})(?:[T ]({TIME}))?({ZONE})?", text.iloc[place])
        try:
            day, clock, zone = parts.groups()  # type: ignore[union-attr]
            value = np.datetime64(f"{day}T{clock or '00:00'}", "us")
            if zone not in (None, "Z"):
                ahead = np.timedelta64(int(zone[1:3]) * 60 + int(zone[4:6]), "m")
                value += ahead if zone[0] == "-" else -ahead
            times.iloc[place] = value.astype(datetime)
        except (ValueError, TypeError):
            continue
    return times.where((times >= np.datetime64("0001-01-01", "us")) & (times < np.datetime64("10000-01-01", "us")))


def read_decimals(text: pd.Series) -> pd.Series:
    """Parses amounts with two decimals as floats, exact enough for twelve digits; others by Decimal, half up."""
    plain = mask(text.str.fullmatch(PLAIN_DECIMAL))
    amounts = pd.to_numeric(text.where(plain)).astype("float64")
    for place in np.flatnonzero(~plain & mask(text.str.fullmatch(DECIMAL))):
        amount = Decimal(text.iloc[place]).quantize(Decimal("0.01"), ROUND_HALF_UP)
        amounts.iloc[place] = float(amount) if abs(amount) < 10**10 else np.nan
    return amounts


def mask(condition: pd.Series) -> np.ndarray:
    """Returns a condition as plain booleans; unknown becomes False."""
    return condition.fillna(False).to_numpy(bool)


def silver(day: date) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """Validates the five files and writes accepted and rejected rows to MinIO as Parquet; returns the accepted rows."""
    accepted: dict[str, pd.DataFrame] = {}
    hits = {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "file.parquet")
        for name, dataset in CATALOG.items():
            body = s3().get_object(Bucket=peer.bucket("pandas"), Key=peer.bronze_key(dataset, day))["Body"]
            parents = {column: accepted[parent][CATALOG[parent].key] for column, parent in dataset.parents.items()}
            validated = validate(*read(body.read(), dataset), dataset, parents)
            for kind, rows in validated._asdict().items():
                rows.to_parquet(path, index=False)
                peer.store("pandas", path, peer.silver_key(dataset, day, kind))
            accepted[name] = validated.accepted
            hits[name] = validated.rejected["_reject_reason"].str.split(";").explode().value_counts().to_dict()
    return accepted, hits


def gold(postgres: Any, accepted: dict[str, pd.DataFrame], day: date) -> None:
    """Upserts the accepted rows in one transaction."""
    with postgres, postgres.cursor() as cursor:
        cursor.execute("".join(peer.tables()))
        for name, dataset in CATALOG.items():
            rows = accepted[name].assign(_partition_date=day, _run_id=peer.RUN)
            execute_values(cursor, peer.upsert(dataset, "values %s"), tuples(rows), page_size=PAGE)


def tuples(rows: pd.DataFrame) -> Any:
    """Returns a frame's rows in the form that psycopg2 takes."""
    return zip(*(plain_values(rows[name]) for name in rows), strict=True)


def plain_values(values: pd.Series) -> list[Any]:
    if values.dtype.kind == "M":
        return values.to_numpy("datetime64[us]").astype(object).tolist()  # NaT becomes None
    return values.astype(object).where(values.notna(), None).tolist()


def marts(postgres: Any, day: date) -> None:
    """Rebuilds all marts from the gold tables, read by SQL."""

    def table(columns: str, name: str) -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas recommends SQLAlchemy 2
            return pd.read_sql(f"select {columns} from {name}", postgres)

    money = "total_amount, insurance_amount, patient_amount"
    patients = table("patient_id, gender, city, birth_date, registration_date, _partition_date", "patients")
    visits = table(
        "visit_id, patient_id, visit_type, department, visit_start_ts, visit_end_ts, status, _partition_date", "visits"
    )
    admissions = table("visit_id, admit_ts, discharge_ts, _partition_date", "admissions")
    bills = table(f"visit_id, {money}, payment_status, _partition_date", "billing")
    treatments = table("max(_partition_date) as _partition_date", "treatments")
    newest = max(t["_partition_date"].max() for t in (patients, visits, admissions, bills, treatments) if len(t))
    for frame in (patients, visits, admissions):
        for name in frame.columns.intersection(TIMES):
            frame[name] = frame[name].astype("datetime64[us]")
    visits["day"] = visits["visit_start_ts"].dt.floor("D")
    visits["duration"] = visits["visit_end_ts"] - visits["visit_start_ts"]
    admissions["stay"] = admissions["discharge_ts"] - admissions["admit_ts"]
    of_visit = visits[["visit_id", "patient_id", "department", "day"]]
    bills = bills.merge(of_visit, on="visit_id")
    stays = admissions.merge(of_visit, on="visit_id")
    built = {
        "mart_daily_kpis": daily_kpis(patients, visits, admissions, bills),
        "mart_department_stats": department_stats(visits, stays, bills),
        "mart_patient_stats": patient_stats(patients, visits, bills, newest),
    }
    with postgres, postgres.cursor() as cursor:
        for mart, rows in built.items():
            cursor.execute(f"delete from {mart}")
            names = ", ".join(rows.columns)
            execute_values(cursor, f"insert into {mart} ({names}) values %s", tuples(rows), page_size=PAGE)


def daily_kpis(
    patients: pd.DataFrame, visits: pd.DataFrame, admissions: pd.DataFrame, bills: pd.DataFrame
) -> pd.DataFrame:
    """Returns one row per day on which a visit started, an admission began or a patient registered."""
    visited = visits.assign(completed=visits["status"] == "Completed").groupby("day")
    admitted = admissions.groupby(admissions["admit_ts"].dt.floor("D").rename("day"))
    states = {status: bills["payment_status"] == status for status in ("Paid", "Pending")}
    billed = bills.assign(**states).groupby("day")
    registered = patients.groupby(patients["registration_date"].rename("day"))
    days = visited.size().index.union(admitted.size().index).union(registered.size().index)
    count, paid = billed.size(), billed["Paid"].sum()
    rows = pd.DataFrame(
        {
            "total_visits": visited.size(),
            "completed_visits": visited["completed"].sum(),
            "total_admissions": admitted.size(),
            "avg_length_of_stay_days": averages(admitted["stay"], 86_400),
            "total_revenue": billed["total_amount"].sum(),
            "insurance_revenue": billed["insurance_amount"].sum(),
            "patient_revenue": billed["patient_amount"].sum(),
            "paid_bills": paid,
            "pending_bills": billed["Pending"].sum(),
            "payment_rate_pct": quotients(100 * paid, count),
            "new_patients": registered.size(),
        },
        index=days.rename("kpi_date"),
    )
    return filled(rows, ["avg_length_of_stay_days", "payment_rate_pct"])


def department_stats(visits: pd.DataFrame, stays: pd.DataFrame, bills: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per department and day on which a visit to it started."""
    by = ["department", "day"]
    types = ("Emergency", "Inpatient", "Outpatient")
    kinds = {f"{kind.lower()}_visits": visits["visit_type"] == kind for kind in types}
    visited = visits.assign(completed_visits=visits["status"] == "Completed", **kinds).groupby(by)
    stayed = stays.groupby(by)
    rows = pd.DataFrame(
        {
            "total_visits": visited.size(),
            **{name: visited[name].sum() for name in ("completed_visits", *kinds)},
            "avg_visit_duration_hrs": averages(visited["duration"], 3_600),
            "total_admissions": stayed.size(),
            "avg_los_days": averages(stayed["stay"], 86_400),
            "total_revenue": bills.groupby(by)["total_amount"].sum(),
        },
        index=visited.size().index.rename(["department", "stat_date"]),
    )
    return filled(rows, ["avg_visit_duration_hrs", "avg_los_days"])


def patient_stats(patients: pd.DataFrame, visits: pd.DataFrame, bills: pd.DataFrame, newest: date) -> pd.DataFrame:
    """Returns one row per patient, with or without visits."""
    visited = visits.groupby("patient_id")
    birth = patients.set_index("patient_id")["birth_date"]
    later = (birth.dt.month > newest.month) | ((birth.dt.month == newest.month) & (birth.dt.day > newest.day))
    rows = patients.set_index("patient_id")[["gender", "city"]].assign(
        age_years=newest.year - birth.dt.year - later,
        total_visits=visited.size(),
        first_visit_date=visited["day"].min(),
        last_visit_date=visited["day"].max(),
        total_billed=bills.groupby("patient_id")["total_amount"].sum(),
        total_paid=bills[bills["payment_status"] == "Paid"].groupby("patient_id")["total_amount"].sum(),
    )
    rows = filled(rows, ["gender", "city", "first_visit_date", "last_visit_date"])
    return rows.assign(is_returning=rows["total_visits"] > 1)


def filled(rows: pd.DataFrame, but: list[str]) -> pd.DataFrame:
    """Fills sums and counts with 0, except in `but`, rounds to two decimals, and turns the index into columns."""
    totals = rows.columns.difference(but)
    return rows.fillna(dict.fromkeys(totals, 0)).round(dict.fromkeys(totals, 2)).reset_index()


def averages(spans: Any, seconds: int) -> pd.Series:
    """Returns the mean span of each group in units of `seconds`."""
    return quotients(spans.sum().astype("int64"), spans.count() * seconds * 1_000_000)


def quotients(above: pd.Series, below: pd.Series) -> pd.Series:
    """Divides whole numbers, rounding half up to four decimals; missing if the divisor is 0."""
    exact = [
        Decimal((20_000 * int(a) + int(b)) // (2 * int(b))).scaleb(-4) if b else None
        for a, b in zip(above, below, strict=True)
    ]
    return pd.Series(exact, index=above.index, dtype=object)


if __name__ == "__main__":
    peer.run("pandas", silver, gold, marts)
