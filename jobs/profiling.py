"""Profiles the files of an export that has no description: dialect, columns, keys, links.

DuckDB reads and counts. Patterns of dates come from patterns.py, so that a profile reads texts as the conversion does.
"""

import fnmatch
import io
import itertools
import re
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from jobs import charsets, dialect, exports, landing, patterns
from jobs.borders import quoted
from jobs.dataset import WHITE_SPACE
from jobs.dialect import Dialect
from jobs.program import Refused

DAYS = [
    *(f"yyyy{mark}MM{mark}dd" for mark in ("-", "/", ".", "")),
    *(f"dd{mark}MM{mark}yyyy" for mark in (".", "/", "-")),
    *(f"MM{mark}dd{mark}yyyy" for mark in ("/", "-", ".")),
]
TIME = "HH:mm[:ss]"
TIMES = (TIME, "HH:mm[:ss[.SSS]]", "HHmm", "HHmmss")
CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"
BETWEEN = (" ", "T")
# Texts that people write for a missing value.
NOTHINGS = (
    *("NULL", "null", "Null", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "None", "none", "\\N", "-", "--", "---", "?"),
    *("k.A.", "n.b.", "s/o", "N.N."),
)
DECIMALS = {mark: rf"^[+-]?([0-9]+({re.escape(mark)}[0-9]*)?|{re.escape(mark)}[0-9]+)$" for mark in (".", ",")}
INTEGER = r"^(0|[1-9][0-9]*)$"
# Sums that no declaration can read: with the sign behind, a currency, or a separator of thousands.
ODD_SUMS = r"^([A-Z]{3}|[€$£])?\s*[+-]?[0-9]{1,3}([., '\x{A0}]?[0-9]{3})*[.,][0-9]{2}\s*([-+]|[A-Z]{3}|[€$£])?$"
# The ISO text that a pattern makes of a fitting text; omitted parts are zeros, as in conversion.py.
ISO = "regexp_replace(regexp_replace(regexp_replace(v, ?, ?), ':$', ':00'), '[.]$', '')"
MOST_LISTED = 40  # values that are listed with their counts
NEARLY = 0.9  # the share of values that counts as all of them, because exports have faults
FEW_VALUES = 12


class ColumnProfile(NamedTuple):
    """Holds what is in one column; shares are of the values that are there."""

    name: str
    place: int  # in its table
    rows: int
    blanks: int
    nulls: dict[str, int]  # texts that stand for no value, with their number
    distinct: int
    values: dict[str, int]  # the most frequent
    days: dict[str, float]  # the share that fits each pattern of dates
    moments: dict[str, float]  # of timestamps
    times: dict[str, float]  # of times without a date
    marks: dict[str, float]  # the share that is a decimal with this mark
    fractions: dict[str, float]  # and has the mark
    offsets: float  # the share of timestamps that end in their offset from UTC
    integers: float
    odd_sums: float
    longest: int
    least: str
    greatest: str

    @property
    def there(self) -> int:
        """Returns the number of values that are there."""
        return self.rows - self.blanks - sum(self.nulls.values())

    @property
    def is_key(self) -> bool:
        """Tells whether nearly every row has a value of its own."""
        return self.there > 0 and self.there >= NEARLY * self.rows and self.distinct >= NEARLY * self.there

    @property
    def is_listed(self) -> bool:
        """Tells whether few values come again and again."""
        return 0 < self.distinct <= MOST_LISTED and (self.distinct <= FEW_VALUES or self.there >= 5 * self.distinct)

    @property
    def kind(self) -> str:
        """Returns what nearly all of its values are."""
        for kind, shares in (("timestamp", self.moments), ("date", self.days), ("time", self.times)):
            if max(shares.values(), default=0) >= NEARLY:
                return kind
        if max(self.fractions.values(), default=0) > 0.05 and max(self.marks.values()) >= 0.5:
            return "decimal"
        return "integer" if self.integers >= NEARLY else "text" if self.there else "blank"


class TableProfile(NamedTuple):
    """Holds what is in files that are read as one."""

    pattern: str
    files: tuple[str, ...]
    dialect: Dialect
    encoding: charsets.Charset
    rows: int
    malformed: int
    columns: tuple[ColumnProfile, ...]

    @property
    def name(self) -> str:
        """Returns its name as SQL has it: the letters of the pattern."""
        text = re.sub(
            r"[^a-z0-9]+", "_", self.pattern.rpartition(".")[0].replace("[0-9]", "").replace("*", "").lower()
        ).strip("_")
        return text if text[:1].isalpha() else f"t_{text}".rstrip("_")

    @property
    def by_name(self) -> dict[str, ColumnProfile]:
        """Returns the columns by their names."""
        return {column.name: column for column in self.columns}

    @property
    def keys(self) -> list[ColumnProfile]:
        """Returns the columns by which nearly every row can be told from the others."""
        return [column for column in self.columns if column.is_key and column.kind in ("text", "integer")]


class Link(NamedTuple):
    """Says that a column's values are keys of another table: `share` of them."""

    table: str  # by its pattern
    column: str
    to_table: str
    to_column: str
    share: float


class Profile(NamedTuple):
    """Holds what is in a folder."""

    folder: str
    tables: tuple[TableProfile, ...]
    links: tuple[Link, ...]
    unread: tuple[str, ...]  # what is not text in columns, each as a sentence says it

    def best(self, what: str, default: str) -> str:
        """Returns the pattern of `what` (days, moments) that fits most columns, or the default where none has any."""
        found: Counter[str] = Counter()
        for column in (column for table in self.tables for column in table.columns):
            shares: Mapping[str, float] = getattr(column, what)
            if max(shares.values(), default=0) >= NEARLY:
                found.update({pattern: share * column.there for pattern, share in shares.items()})
        return max(found, key=lambda pattern: found[pattern]) if found else default

    @property
    def decimal_mark(self) -> str:
        """Returns the mark that most fractions have."""
        found = {".": 0.0, ",": 0.0}
        for column in (column for table in self.tables for column in table.columns if column.kind == "decimal"):
            for mark in found:
                found[mark] += column.fractions[mark] * column.there
        return max(found, key=lambda mark: found[mark])

    @property
    def nulls(self) -> dict[str, int]:
        """Returns the texts that stand for no value, with their number."""
        found: Counter[str] = Counter()
        for column in (column for table in self.tables for column in table.columns):
            found.update(column.nulls)
        return dict(found.most_common())


def profile(folder: Path) -> Profile:
    """Reads the files of a folder; raises Refused if none can be read."""
    return Reading(folder).profile


class Reading:
    """Holds a folder's files in DuckDB, for questions that a profile does not answer; `columns` are named c0, c1, …"""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise Refused(f"{quoted(str(folder))} is not a folder; give the folder of an export's files as FROM.")
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith((".", "_"))]
        # The texts are on disk, not in memory; only this user can read them, and they are deleted with this object.
        place = tempfile.mkdtemp(prefix="profile-")
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        self.connection = duckdb.connect(str(Path(place, "profile.duckdb")), config={"threads": 2})
        self.places: dict[str, str] = {}  # the tables of DuckDB by pattern
        unread, tables = list[str](), list[TableProfile]()
        groups: dict[tuple[str, tuple[str, ...], Dialect], list[tuple[Path, Path, int, charsets.Charset]]] = {}
        for number, path in enumerate(files):
            with path.open("rb") as opened:
                found = dialect.look(opened.read(1 << 16))
            if found.kind or not path.stat().st_size:
                unread.append(f"{quoted(path.name)} is {found.kind or 'empty'}")
                continue
            charset = charsets.detect(path)
            copy = charsets.as_utf8(path, charset.name, Path(place, f"{number}.csv"))
            form, names, skip = read_shape(copy)
            if len(names) < 2:
                unread.append(f"{quoted(path.name)} has no columns")
                continue
            groups.setdefault((pattern_of(path.name), names, form), []).append((path, copy, skip, charset))
        for (pattern, names, form), group in groups.items():
            others = [path.name for each in groups.values() if each is not group for path, *_ in each]
            tables.append(self.load(narrowed(pattern, group[0][0].name, others), names, form, group))
        if not tables:
            why = f" ({'; '.join(unread[:3])})" if unread else ""
            raise Refused(f"{quoted(str(folder))} has no file with columns{why}; give an export's folder as FROM.")
        self.profile = Profile(str(folder), tuple(tables), tuple(self.links(tables)), tuple(unread))

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Returns the rows of a query."""
        return self.connection.execute(query, list(values)).fetchall()

    def load(self, pattern: str, names: Sequence[str], form: Dialect, group: Sequence[Any]) -> TableProfile:
        """Reads files with one header into a table of texts, and profiles it."""
        place = self.places[pattern] = f"t{len(self.places)}"
        fields = {f"c{number}": "VARCHAR" for number in range(len(names))}
        quote = form.quote
        rejects = f"{place}_rejects"
        for number, (_, copy, skip, _) in enumerate(group):
            text = (
                "select * from read_csv(?, columns=?, auto_detect=false, header=false, skip=?, delim=?, quote=?, "
                f"escape=?, store_rejects=true, rejects_table='{rejects}', rejects_scan='{rejects}_scan', "
                "max_line_size=4194304, rejects_limit=0)"
            )
            do = f"insert into {place}" if number else f"create table {place} as"
            self.connection.execute(f"{do} {text}", [str(copy), fields, skip, form.separator, quote, quote])
        [(malformed,)] = self.ask(f"select count(distinct (file_id, line)) from {rejects}")
        [(rows,)] = self.ask(f"select count(*) from {place}")
        nothing = "', '".join(name.replace("'", "''") for name in NOTHINGS)
        columns = tuple(self.column(place, number, name, rows, nothing) for number, name in enumerate(names) if name)
        files = tuple(path.name for path, *_ in group)
        charset = next((each[3] for each in group if each[3].name != "utf-8"), group[0][3])
        return TableProfile(pattern, files, form, charset, rows + malformed, malformed, columns)

    def column(self, place: str, number: int, name: str, rows: int, nothing: str) -> ColumnProfile:
        """Profiles one column, whose values and their numbers the temporary table `v` holds meanwhile."""
        trimmed = f"nullif(trim(c{number}, '{WHITE_SPACE}'), '')"
        self.connection.execute(
            f"create or replace temp table v as select {trimmed} as v, count(*) as n from {place} group by 1"
        )
        [(blanks,)] = self.ask("select coalesce(sum(n), 0)::bigint from v where v is null")
        nulls = dict(self.ask(f"select v, n from v where v in ('{nothing}') order by n desc, v"))
        self.connection.execute(f"delete from v where v is null or v in ('{nothing}')")
        distinct, longest, least, greatest = self.ask(
            "select count(*), coalesce(max(length(v)), 0), min(v), max(v) from v"
        )[0]
        values = dict(self.ask(f"select v, n from v order by n desc, v limit {MOST_LISTED}"))
        has_days, clocks, starts, integers, odd_sums, *decimals = self.shares(
            [
                matches("^[0-9]{2}([0-9]{2}|[./-][0-9]{2})[./-]?[0-9]{2}", " and length(v) >= 8"),
                matches(CLOCK),
                matches(f"^({'|'.join(map(day_regex, DAYS))})[ T]"),
                matches(INTEGER),
                matches(ODD_SUMS),
                *(matches(regex) for regex in DECIMALS.values()),
                *(matches(regex, f" and contains(v, '{mark}')") for mark, regex in DECIMALS.items()),
            ]
        )
        marks, fractions = (dict(zip(DECIMALS, part, strict=True)) for part in (decimals[:2], decimals[2:]))
        times = {TIME: clocks} if clocks else {}
        days, moments, offsets = dict[str, float](), dict[str, float](), 0.0
        if has_days > 0.3 and starts < 0.3:
            days = self.fits(DAYS, with_time=False)
        elif has_days > 0.3:
            offsets, moments = self.timestamps()
        odd_sums = odd_sums if max(marks.values()) < NEARLY and not days else 0.0
        if max(fractions.values()) or integers >= NEARLY:
            mark = max(fractions, key=lambda each: fractions[each])
            number_of = f"try_cast(replace(v, '{mark}', '.') as decimal(38, 4))"
            least, greatest = self.ask(f"select min({number_of}), max({number_of}) from v")[0]
        if fitting := moments or days:
            parts = parts_of(max(fitting, key=lambda text: fitting[text]), with_time=bool(moments))
            query = f"select min(d), max(d) from (select try_cast({ISO} as timestamp)::date as d from v where "
            least, greatest = self.ask(f"{query} regexp_matches(v, ?))", *parts, parts[0])[0]
        shapes = (name, number, rows, blanks, nulls, distinct, values, days, moments, times, marks, fractions)
        return ColumnProfile(*shapes, offsets, integers, odd_sums, longest, text_of(least), text_of(greatest))

    def shares(self, conditions: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
        """Returns the share of the values of `v` that meet each condition, given with its parameters."""
        sums = ", ".join(f"coalesce(sum(n) filter ({condition}), 0)::bigint" for condition, _ in conditions)
        texts = [text for _, texts in conditions for text in texts]
        there, *found = self.ask(f"select coalesce(sum(n), 0)::bigint, {sums} from v", *texts)[0]
        return [part / there if there else 0.0 for part in found]

    def fits(self, texts: Sequence[str], with_time: bool) -> dict[str, float]:
        """Returns the share of the values of `v` that fit each pattern, of the patterns that any value fits."""
        value = f"try_cast({ISO} as {'timestamp' if with_time else 'date'})"
        parts = (parts_of(text, with_time) for text in texts)
        holds = f"regexp_matches(v, ?) and {value} is not null"
        found = self.shares([(holds, (regex, regex, template)) for regex, template in parts])
        return {text: part for text, part in zip(texts, found, strict=True) if part}

    def timestamps(self) -> tuple[float, dict[str, float]]:
        """Removes the offsets from UTC in `v`; returns the share that had one, and the share that fits each pattern."""
        [offsets] = self.shares([matches(patterns.OFFSET)])
        self.connection.execute(
            "create or replace temp table v as "
            f"select regexp_replace(v, '{patterns.OFFSET}', '') as v, sum(n)::bigint as n from v group by 1"
        )
        found = self.shares([matches(f"^{day_regex(day)}[ T]") for day in DAYS])
        alike = [day for day, part in zip(DAYS, found, strict=True) if part]
        moments = self.fits([f"{d}{mark}{time}" for d in alike for mark in BETWEEN for time in TIMES], with_time=True)
        return offsets, moments

    def links(self, tables: Sequence[TableProfile]) -> Iterator[Link]:
        """Yields the columns whose values are nearly all keys of another table."""
        for to in tables:
            for key in to.keys:
                for table in tables:
                    for column in table.columns if table is not to else ():
                        share = self.share_in(table, column, to, key)
                        if share >= 0.6:
                            yield Link(table.pattern, column.name, to.pattern, key.name, round(share, 3))

    def share_in(self, table: TableProfile, column: ColumnProfile, to: TableProfile, key: ColumnProfile) -> float:
        """Returns the share of a column's values that are keys of another table; 0 where they are too few to tell."""
        small = key.kind == "integer" and not (names_alike(column.name, key.name) and column.kind == "integer")
        if small or column.kind not in ("text", "integer") or column.distinct < min(3, key.distinct):
            return 0.0
        if abs(column.longest - key.longest) > (3 if key.longest < 12 else 0):
            return 0.0
        one, other = f"trim(c{column.place})", f"trim(c{key.place})"
        keys = f"select {other} from {self.places[to.pattern]}"
        sample = f"select distinct {one} as v from {self.places[table.pattern]} where {one} <> '' limit 500"
        [(found, of)] = self.ask(f"select count(*) filter (v in ({keys})), count(*) from ({sample})")
        return found / of if of else 0.0

    def is_unique(self, table: TableProfile, names: Sequence[str]) -> bool:
        """Tells whether columns together tell nearly all rows apart, and each of them is there."""
        columns = [table.by_name[name] for name in names]
        values = ", ".join(f"trim(c{column.place})" for column in columns)
        [(distinct,)] = self.ask(f"select count(*) from (select distinct {values} from {self.places[table.pattern]})")
        return distinct >= 0.98 * (table.rows - table.malformed) and all(c.there >= NEARLY * c.rows for c in columns)


def matches(regex: str, more: str = "") -> tuple[str, Sequence[str]]:
    """Returns the condition that a value of `v` matches a regular expression, with its parameters."""
    return f"regexp_matches(v, ?){more}", (regex,)


def text_of(value: Any) -> str:
    """Returns a value as a page shows it."""
    return "" if value is None else f"{value:f}".rstrip("0").rstrip(".") if hasattr(value, "as_tuple") else str(value)


def day_regex(day: str) -> str:
    """Returns the regular expression of a pattern of dates."""
    return patterns.read_pattern(day, with_time=False).regex[1:-1].replace("(", "(?:")


def parts_of(pattern: str, with_time: bool) -> tuple[str, str]:
    """Returns the regular expression of a pattern and the template of its result, as DuckDB writes them."""
    found = patterns.read_pattern(pattern, with_time)
    return found.regex, re.sub(r"\$(\d)", r"\\\1", found.template)


def names_alike(one: str, other: str) -> bool:
    """Tells whether two columns have one name, or one's name ends in the other's."""
    short, long = sorted((one.lower(), other.lower()), key=len)
    return short == long or (len(short) > 3 and long.endswith(short))


def pattern_of(name: str) -> str:
    """Returns the pattern of files whose names differ from this one only in dates and numbers."""
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    return re.sub(r"\*+(?:[-_. ]?\*+)*", "*", re.sub(r"[0-9]+", "*", stem)) + dot + ending


def narrowed(pattern: str, name: str, others: Sequence[str]) -> str:
    """Returns a pattern, or a narrower one, that finds none of the files with other columns."""
    for each in (pattern, pattern.replace("*", "[0-9]*")):
        if not any(fnmatch.fnmatchcase(other, each) for other in others):
            return each
    return name


def read_shape(path: Path) -> tuple[Dialect, tuple[str, ...], int]:
    """Returns how a file in UTF-8 writes its records, the names in its header and the lines up to its end."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as text:
        start = "".join(itertools.islice(text, 200))
    lines = start.splitlines(keepends=True)
    marked = 1 if lines and dialect.SEPARATOR_LINE.fullmatch(lines[0].strip(WHITE_SPACE)) else 0
    form = sniff(path, marked) or Dialect(dialect.separator_of("".join(lines[marked : marked + 1]), ()))
    skip = marked
    for record, span, _ in landing.read_records(io.StringIO("".join(lines[marked:]), newline="\n"), form):
        skip += span
        if record.strip(WHITE_SPACE):
            return form, exports.names_of(record, form), skip
    return form, (), skip


def sniff(path: Path, skip: int) -> Dialect | None:
    """Returns the dialect that DuckDB detects in a file; None if it detects none."""
    try:
        found = duckdb.execute(
            "select delimiter, quote from sniff_csv(?, all_varchar=true, header=true, skip=?, ignore_errors=true)",
            [str(path), skip],
        ).fetchone()
    except duckdb.Error:
        return None
    if not found or len(found[0]) != 1 or found[0] in "\r\n":
        return None
    quote = found[1] if len(found[1]) == 1 and found[1] not in ("\0", found[0]) else '"'
    return Dialect(found[0], quote)
