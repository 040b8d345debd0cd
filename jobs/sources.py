"""Reads and checks the declarations of how hospitals' own exports become our files: sources/<name>.yml.

Plain Python, no Spark and no database: the job, the Luigi tasks and the tests all read it.
"""

import codecs
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import yaml

from jobs import patterns, settings
from jobs.borders import quoted
from jobs.catalog import CATALOG
from jobs.dataset import NAME, Dataset
from jobs.dialect import Dialect
from jobs.program import Refused

CONVERTER = 1  # raise it when conversion.py reads the same text differently: every date of a source is then due

# Encodings by the name of Python's codec, with Java's name.
ENCODINGS = {
    "ascii": "US-ASCII",
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "cp437": "IBM437",
    "cp850": "IBM850",
    "cp852": "IBM852",
    "cp858": "IBM00858",
    "mac-roman": "x-MacRoman",
    "koi8-r": "KOI8-R",
    "shift_jis": "Shift_JIS",
    "gb18030": "GB18030",
    **{f"iso8859-{part}": f"ISO-8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15)},
    **{f"cp{page}": f"windows-{page}" for page in range(1250, 1259)},
}
DECIMAL_MARKS = (".", ",")
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}")
KEYS = (
    "doc",
    "time_zone",
    "encoding",
    "separator",
    "quote",
    "decimal_mark",
    "dates",
    "timestamps",
    "nulls",
    "datasets",
)


@dataclass(frozen=True)
class Cell:
    """Describes from what one of our columns is made: columns of the source, joined by a blank, or one `value`.

    `values` pairs codes with our values; `as_timestamp` means that a date is read by the pattern of timestamps. A
    `value` is the same for every row.
    """

    names: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    value: str | None = None
    as_timestamp: bool = False
    line: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Table:
    """Describes the files that are read as one table, by a pattern of their names."""

    name: str
    files: str
    line: int = field(default=0, repr=False)


@dataclass(frozen=True)
class DatasetMapping:
    """Describes how one dataset is made: by `columns` of its only table, or by `sql` over all its tables."""

    dataset: str
    tables: tuple[Table, ...]
    columns: tuple[tuple[str, Cell], ...] = ()
    sql: str = ""
    sql_file: str = field(default="", repr=False)
    line: int = field(default=0, repr=False)

    @property
    def used(self) -> dict[str, int]:
        """Returns the source's columns that `columns` names, each with the line that names it first."""
        return {name: cell.line for _, cell in reversed(self.columns) for name in cell.names}


@dataclass(frozen=True)
class Source:
    """Describes the export of one system: how its files are written, and how each dataset is made from them."""

    name: str
    mappings: tuple[DatasetMapping, ...]
    time_zone: str = "UTC"
    encoding: str = "utf-8"
    separator: str = ","
    quote: str = '"'
    decimal_mark: str = "."
    dates: str = "yyyy-MM-dd"
    timestamps: str = "yyyy-MM-dd[T][ ]HH:mm[:ss]"
    nulls: tuple[str, ...] = ()
    doc: str = field(default="", repr=False)
    file: str = field(default="", repr=False)  # of the declaration, as sentences name it

    @property
    def dialect(self) -> Dialect:
        """Returns how the files write their records."""
        return Dialect(self.separator, self.quote)

    @property
    def charset(self) -> str:
        """Returns Java's name of the encoding."""
        return ENCODINGS[self.encoding]

    @property
    def by_dataset(self) -> dict[str, DatasetMapping]:
        """Returns the mapping of each dataset."""
        return {mapping.dataset: mapping for mapping in self.mappings}

    @property
    def fingerprint(self) -> str:
        """Returns a hash of what the derived files depend on: the declaration without its `doc`, and the SQL."""
        return hashlib.sha256(f"{CONVERTER} {self!r}".encode()).hexdigest()[:16]


def folder() -> Path:
    """Returns the directory of the declarations: SOURCES_DIR, or sources/ of the clone."""
    return settings.ROOT / Path(settings.given("SOURCES_DIR") or "sources").expanduser()


def declared() -> list[str]:
    """Returns the names of the sources that have a declaration, valid or not."""
    return sorted({path.stem for path in folder().glob("*.y*ml") if path.suffix in (".yml", ".yaml")})


def load(name: str) -> Source:
    """Reads the declaration of a source; raises Refused with the file and the line of a mistake."""
    path = folder() / f"{name}.yml"
    if not SOURCE_NAME.fullmatch(name):
        raise Refused(f"{quoted(name)} is not a name for a source: use letters, digits, _ and - for its folder.")
    if path.with_suffix(".yaml").exists():
        raise Refused(
            f"sources/{name}.yaml and sources/{name}.yml are two declarations of one source; keep the .yml alone."
            if path.exists()
            else f"sources/{name}.yaml is not read; rename it to sources/{name}.yml."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Refused(
            f"sources/{name}.yml is missing; write it (docs/sources.md), or `make profile` drafts it."
        ) from None
    except UnicodeDecodeError:
        raise Refused(f"sources/{name}.yml is not UTF-8; save it as UTF-8.") from None
    return Declaration(name).read(text)


class Declaration:
    """Reads one declaration; raises Refused with its file and line for every mistake."""

    def __init__(self, name: str) -> None:
        self.name, self.file = name, f"sources/{name}.yml"

    def fail(self, node: yaml.Node, wrong: str) -> Refused:
        """Returns the error for a mistake, with the line of a node."""
        return Refused(f"{self.file} line {node.start_mark.line + 1}: {wrong}.")

    def read(self, text: str) -> Source:
        """Returns the source that a declaration's text describes."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            what = error.problem or error.context
            raise Refused(f"{self.file} line {line}: it is not valid YAML ({what}); correct it.") from None
        except yaml.YAMLError:
            raise Refused(f"{self.file} holds characters that YAML does not allow; save it as plain text.") from None
        if root is None:
            raise Refused(f"{self.file} is empty; write it (docs/sources.md), or `make profile` drafts it.")
        given = self.entries(root, KEYS)
        if "datasets" not in given:
            raise self.fail(root, f"lacks `datasets`, which says what each of {', '.join(CATALOG)} is made of")
        texts = {key: self.text(node) for key, node in given.items() if key not in ("nulls", "datasets")}
        for key, check in CHECKS.items():
            if key in texts:
                try:
                    texts[key] = check(texts[key])
                except ValueError as error:
                    raise self.fail(given[key], f"{key} {quoted(texts[key])} {error}") from None
        if texts.get("quote") and texts["quote"] == texts.get("separator", ","):
            raise self.fail(given["quote"], "quote is the same character as separator; correct one of them")
        nulls = tuple(map(self.text, self.items(given["nulls"]))) if "nulls" in given else ()
        mappings = tuple(
            self.mapping(CATALOG[name], node) for name, node in self.entries(given["datasets"], list(CATALOG)).items()
        )
        if not mappings:
            raise self.fail(given["datasets"], f"names no dataset; the datasets are {', '.join(CATALOG)}")
        self.check_tables(mappings)
        return Source(self.name, mappings, nulls=nulls, file=self.file, **texts)

    def entries(self, node: yaml.Node, known: list[str] | tuple[str, ...] | None = None) -> dict[str, yaml.Node]:
        """Returns the entries of a mapping by key; each key must be among `known` and occur once."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, "should be keys with values, as in `key: value`")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key)
            if known is not None and name not in known:
                raise self.fail(key, f"{quoted(name)} is not a key here; the keys are {', '.join(known)}")
            if name in found:
                raise self.fail(key, f"{quoted(name)} is here twice; remove one of the two")
            found[name] = value
        return found

    def items(self, node: yaml.Node) -> list[yaml.Node]:
        """Returns the items of a list; a single text counts as a list of one."""
        return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]

    def text(self, node: yaml.Node) -> str:
        """Returns a text as it is written, whatever YAML takes it for: 01 is not a number, and NO is not false."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.fail(node, "should be a text")
        is_null = node.tag == "tag:yaml.org,2002:null" and not node.style
        return "" if is_null and node.value in ("", "~") else str(node.value)

    def mapping(self, dataset: Dataset, node: yaml.Node) -> DatasetMapping:
        """Returns how a dataset is made."""
        line = node.start_mark.line + 1
        given = self.entries(node, ("files", "columns", "sql", "tables"))
        pair = ("sql", "tables") if {"sql", "tables"} & {*given} else ("files", "columns")
        if {*given} != {*pair}:
            raise self.fail(node, f"{dataset.name} needs `files` and `columns`, or `sql` and `tables`")
        if pair == ("files", "columns"):
            table = self.table(dataset.name, given["files"])
            return DatasetMapping(dataset.name, (table,), tuple(self.cells(dataset, given["columns"])), line=line)
        tables = tuple(self.table(name, files) for name, files in self.entries(given["tables"]).items())
        if not tables:
            raise self.fail(
                given["tables"], "names no table; give each the pattern of its files, as in claims: CLAIMS_*.csv"
            )
        sql_file, sql = self.sql(given["sql"])
        return DatasetMapping(dataset.name, tables, sql=sql, sql_file=sql_file, line=line)

    def table(self, name: str, node: yaml.Node) -> Table:
        """Returns a table, with the pattern of its files."""
        files = self.text(node)
        if not NAME.fullmatch(name):
            raise self.fail(node, f"{quoted(name)} is not a name for a table: use lower case letters, digits and _")
        if not files or "\\" in files or files.startswith("/") or ".." in files.split("/"):
            raise self.fail(node, f"{quoted(files)} is not a pattern of files in the date's folder, as PAT_*.csv is")
        return Table(name, files, node.start_mark.line + 1)

    def cells(self, dataset: Dataset, node: yaml.Node) -> Iterator[tuple[str, Cell]]:
        """Yields from what each column of a dataset is made; a column that is not required may be left out."""
        given = self.entries(node, dataset.names)
        lacking = [column.name for column in dataset.columns if column.required and column.name not in given]
        if lacking:
            raise self.fail(node, f"{dataset.name} lacks {', '.join(lacking)}, which must not be blank")
        for name, cell in given.items():
            yield name, self.cell(dataset, name, cell)

    def cell(self, dataset: Dataset, name: str, node: yaml.Node) -> Cell:
        """Returns from what one column is made."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            return Cell(self.names(node), line=line)
        given = self.entries(node, ("from", "values", "value", "as"))
        if ("value" in given) == ("from" in given) or ("value" in given and len(given) > 1):
            raise self.fail(node, f"{name} needs `from`, perhaps with `values` or `as`, or `value` alone")
        if "value" in given:
            return Cell(value=self.text(given["value"]), line=line)
        codes = self.entries(given["values"]) if "values" in given else {}
        values = {code.strip(): self.text(each) for code, each in codes.items()}
        listed = next(column.one_of for column in dataset.columns if column.name == name)
        for code, value in values.items():
            if listed and value and value.lower() not in [each.lower() for each in listed]:
                wrong = (
                    f"{name} has no value {quoted(value)}, which {quoted(code)} stands for; it has {', '.join(listed)}"
                )
                raise self.fail(given["values"], wrong)
        if "as" in given:
            kind = next(column.type for column in dataset.columns if column.name == name)
            if self.text(given["as"]) != "timestamp" or kind not in ("date", "timestamp"):
                raise self.fail(given["as"], f"`as` may be timestamp, and of a date; {name} is a {kind}")
        return Cell(self.names(given["from"]), tuple(values.items()), None, "as" in given, line)

    def names(self, node: yaml.Node) -> tuple[str, ...]:
        """Returns the column names that a text or a list gives."""
        names = tuple(self.text(each).strip() for each in self.items(node))
        if not names or not all(names):
            raise self.fail(node, "names no column; write the name as it stands in the file's header")
        return names

    def sql(self, node: yaml.Node) -> tuple[str, str]:
        """Returns the name and the text of a mapping's SQL file."""
        name = self.text(node)
        path = folder() / self.name / name
        if not name or not path.resolve().is_relative_to((folder() / self.name).resolve()):
            raise self.fail(node, f"{quoted(name)} is not a file of sources/{self.name}/")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise self.fail(
                node, f"sources/{self.name}/{name} is missing or cannot be read as UTF-8; write it"
            ) from None
        return f"sources/{self.name}/{name}", text.strip().rstrip(";").rstrip()

    def check_tables(self, mappings: tuple[DatasetMapping, ...]) -> None:
        """Raises Refused if two datasets' SQL uses one name for different files: all are views of one session."""
        known: dict[str, Table] = {}
        for table in (table for mapping in mappings if mapping.sql_file for table in mapping.tables):
            other = known.setdefault(table.name, table)
            if other.files != table.files:
                raise Refused(
                    f"{self.file} line {table.line}: the table {table.name} has other files in line "
                    f"{other.line}; give one of them another name."
                )


def check_zone(text: str) -> str:
    """Returns the name of a time zone; raises ValueError for any other text."""
    if text not in available_timezones():
        raise ValueError("is not a time zone; name it as in Europe/Paris")
    return text


def check_encoding(text: str) -> str:
    """Returns the name of Python's codec; raises ValueError for an encoding that is not read here."""
    try:
        name = codecs.lookup(text).name
    except (LookupError, ValueError):
        name = ""
    if name not in ENCODINGS:
        raise ValueError("is not an encoding that is read here; windows-1252, iso-8859-15 and utf-8 are three that are")
    return "utf-8-sig" if name == "utf-8" else name


def check_separator(text: str) -> str:
    """Returns a separator of fields; raises ValueError for any other text."""
    if len(text) != 1 or text.isalnum() or text in "\r\n\0\"'":
        raise ValueError('is not a separator; give one character, as in ";" or "\\t"')
    return text


def check_quote(text: str) -> str:
    """Returns a quote, or "" if nothing is quoted; raises ValueError for any other text."""
    if len(text) > 1 or text.isalnum() or (text and text in "\r\n\0 "):
        raise ValueError('is not a quote; give one character, or "" where nothing is quoted')
    return text


def check_decimal_mark(text: str) -> str:
    """Returns a decimal mark; raises ValueError for any other text."""
    if text not in DECIMAL_MARKS:
        raise ValueError(f"is not a decimal mark; it is one of {' '.join(DECIMAL_MARKS)}")
    return text


def check_dates(text: str) -> str:
    """Returns a pattern of dates; raises ValueError for any other text."""
    patterns.read_pattern(text, with_time=False)
    return text


def check_timestamps(text: str) -> str:
    """Returns a pattern of timestamps; raises ValueError for any other text."""
    patterns.read_pattern(text, with_time=True)
    return text


CHECKS: Mapping[str, Any] = {
    "time_zone": check_zone,
    "encoding": check_encoding,
    "separator": check_separator,
    "quote": check_quote,
    "decimal_mark": check_decimal_mark,
    "dates": check_dates,
    "timestamps": check_timestamps,
}
