"""Drafts the declaration of a source from the profile of its files: what each dataset is made of, and how sure that is.

What is guessed is marked TODO in the draft, with the reason. DESIGN section 8 has what a declaration says.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from jobs import terms
from jobs.catalog import CATALOG
from jobs.dataset import NAME, Column, Dataset
from jobs.profiling import NEARLY, TIME, ColumnProfile, Link, Profile, Reading, TableProfile

SURE = 0.65  # a guess of less is marked TODO
LEAST = 0.4  # a guess of less is none
FEW_CODES = 25
# Codes that say nothing and have a smaller share, or that are only alike and have fewer rows, are left to be rejected:
# exports have faults.
RARE, FEW_ROWS = 0.01, 5


class Candidate(NamedTuple):
    """Holds columns of a table that could be one of ours: one, or a date and a time."""

    names: tuple[str, ...]
    columns: tuple[ColumnProfile, ...]

    @property
    def is_pair(self) -> bool:
        """Tells whether it is a date with a time beside."""
        return len(self.names) > 1


class Guess(NamedTuple):
    """Says what one column of ours seems to be made of; `why` is set where somebody has to look."""

    column: str
    names: tuple[str, ...] = ()
    value: str | None = None
    values: tuple[tuple[str, str], ...] = ()
    as_timestamp: bool = False
    confidence: float = 0.0
    why: str = ""
    counts: tuple[tuple[str, int], ...] = ()  # of the codes
    table: str = ""  # by its pattern


class Draft(NamedTuple):
    """Says what one dataset seems to be made of: of one table, or of several joined by SQL."""

    dataset: str
    table: TableProfile
    guesses: tuple[Guess, ...]
    score: float
    join: Link | None = None  # another table, by a key that both have
    where: tuple[str, tuple[str, ...]] | None = None  # only rows whose column has one of these values
    other: TableProfile | None = None

    @property
    def is_sql(self) -> bool:
        """Tells whether columns alone cannot say it."""
        return bool(self.join or self.where)


def draft(reading: Reading) -> dict[str, Draft]:
    """Returns what each dataset seems to be made of; one that no file seems to hold is left out."""
    profile, drafts = reading.profile, dict[str, Draft]()
    for name, dataset in CATALOG.items():
        taken = {each.table.pattern for each in drafts.values()}
        found = [each for table in profile.tables if (each := of_table(dataset, table, profile, drafts, taken))]
        ranked = sorted(found, key=lambda each: each.score, reverse=True)
        if ranked and all(parent in drafts for parent in dataset.parents.values()):
            best = complete(ranked[0], dataset, profile, drafts, taken)
            drafts[name] = fill(narrow(best, dataset, drafts), dataset, reading)
    return drafts


# ---- guesses -------------------------------------------------------------------------------------------------------


def of_table(
    dataset: Dataset, table: TableProfile, profile: Profile, drafts: Mapping[str, Draft], taken: set[str]
) -> Draft | None:
    """Returns what a dataset would be if it were made of this table; None where too little speaks for it."""
    guesses = guess(dataset, table, dataset.columns, profile, drafts)
    found = {each.column: each.confidence for each in guesses}
    weights = {c.name: (2.0 if c.name == dataset.amount else 1.0) if c.required else 0.5 for c in dataset.columns}
    score = sum(weights[name] * confidence for name, confidence in found.items())
    if any(column.references and column.name not in found for column in dataset.columns):
        return None
    if score < 0.4 * sum(weights.values()):
        return None
    own = terms.of_file(table.name, dataset)
    others = max(terms.of_file(table.name, each) for each in CATALOG.values() if each is not dataset)
    score += own - 0.5 * (not own) - (0.3 if table.pattern in taken else 0.75 * others * (others > own))
    if dataset.amount and dataset.amount not in found:
        score -= 1.5
    tables = {each.pattern: each for each in profile.tables}
    above = (tables[link.to_table] for link in profile.links if link.table == table.pattern)
    if any(terms.of_file(each.name, dataset) > own for each in above if each.pattern not in taken):
        score -= 1.5  # the lines of bills are no bills
    return Draft(dataset.name, table, guesses, score)


def guess(
    dataset: Dataset, table: TableProfile, wanted: Sequence[Column], profile: Profile, drafts: Mapping[str, Draft]
) -> tuple[Guess, ...]:
    """Returns the best columns of a table for those of ours, the surest first taken."""
    ranked = []
    for column in wanted:
        for candidate in candidates(table):
            score = match(dataset, column, candidate, table, profile, drafts)
            if score >= LEAST:
                ranked.append((score, column, candidate))
    ranked.sort(key=lambda each: -each[0])
    taken: set[str] = set()
    found: dict[str, Guess] = {}
    for score, column, candidate in ranked:
        is_key = column.references or column.name == dataset.key
        if column.name not in found and (is_key or not taken & {*candidate.names}):
            found[column.name] = made_of(column, candidate, score, table)
            taken |= {*candidate.names} if not is_key else set()
    return tuple(found[column.name] for column in wanted if column.name in found)


def candidates(table: TableProfile) -> Iterator[Candidate]:
    """Yields each column, and each date with the time that stands beside it."""
    for column in table.columns:
        yield Candidate((column.name,), (column,))
    for day, time in zip(table.columns, table.columns[1:], strict=False):
        if day.kind == "date" and time.kind == "time":
            yield Candidate((day.name, time.name), (day, time))


def match(
    dataset: Dataset,
    column: Column,
    candidate: Candidate,
    table: TableProfile,
    profile: Profile,
    drafts: Mapping[str, Draft],
) -> float:
    """Tells how much speaks for a column of theirs being this one of ours, by name and by content: from 0 to 1."""
    theirs = candidate.columns[0]
    name = max(terms.of_column(each, column) for each in candidate.names[:1])
    if column.name == dataset.key and terms.words_of(theirs.name) in (["id"], ["key"], ["nr"], ["no"]):
        name = max(name, 0.6)
    if column.references:
        content = refers(theirs, table, drafts.get(column.references), profile)
        return 0.0 if candidate.is_pair or not content else 0.3 * name + 0.7 * content
    content = holds(column, candidate)
    if column.name == dataset.key:
        content = 1.0 if theirs.is_key and theirs.kind in ("text", "integer") else 0.3 * (name >= 0.9)
    elif column.type == "text" and not column.one_of and not name:
        return 0.0
    if not (name or column.required):
        return 0.0
    if column.required:
        content *= theirs.there / theirs.rows if theirs.rows else 0.0
    return 0.5 * name + 0.5 * content if content else 0.0


def refers(theirs: ColumnProfile, table: TableProfile, parent: Draft | None, profile: Profile) -> float:
    """Tells how many values of a column are keys of the table that a parent is made of."""
    if parent is None:
        return 0.0
    [key] = [each for each in parent.guesses if each.column == CATALOG[parent.dataset].key][:1] or [Guess("")]
    if table.pattern == parent.table.pattern:
        return 0.95 if key.names == (theirs.name,) else 0.0  # the row itself is the parent
    places = (table.pattern, theirs.name, parent.table.pattern)
    return max(
        [each.share for each in profile.links if each[:3] == places and (each.to_column,) == key.names], default=0
    )


def holds(column: Column, candidate: Candidate) -> float:
    """Tells how many values could be values of a column of ours."""
    theirs = candidate.columns[0]
    if not theirs.there:
        return 0.0
    if column.one_of:
        if theirs.distinct > FEW_CODES or theirs.kind not in ("text", "integer"):
            return 0.0
        decoded = terms.decode(column, list(theirs.values))
        return max(0.1, sum(theirs.values[code] for code in decoded) / theirs.there)
    if column.type == "timestamp":
        if candidate.is_pair:
            return max(theirs.days.values())
        return max(theirs.moments.values(), default=0.6 * max(theirs.days.values(), default=0.0))
    if candidate.is_pair:
        return 0.0
    if column.type == "date":
        return max([*theirs.days.values(), *theirs.moments.values()], default=0.0)
    if column.type == "decimal":
        return max(theirs.marks.values()) * (1.0 if theirs.kind == "decimal" else 0.5) if not theirs.days else 0.0
    return {"text": 0.7, "integer": 0.6, "blank": 0.0}.get(theirs.kind, 0.0) * (0.5 if theirs.is_key else 1.0)


def made_of(column: Column, candidate: Candidate, score: float, table: TableProfile) -> Guess:
    """Returns the guess that a column is made of a candidate, with its codes."""
    theirs, why = candidate.columns[0], ""
    if score < SURE:
        why = "is this the column?"
    values, counts = tuple[tuple[str, str], ...](), tuple[tuple[str, int], ...]()
    if column.one_of:
        values, why = codes_of(column, theirs, why)
        # A text that few rows have may be anything: a draft is no place for it.
        known = dict(values)
        counts = tuple((code, rows) for code, rows in theirs.values.items() if code in known or rows >= FEW_ROWS)
    if theirs.odd_sums > NEARLY and column.type == "decimal":
        why = "a sign behind, a currency or marks between thousands are not read; have it exported without"
    if column.type in ("date", "timestamp") and not candidate.is_pair:
        why = ambiguity(theirs) or why
    is_moment = column.type == "date" and theirs.kind == "timestamp"
    return Guess(column.name, candidate.names, None, values, is_moment, score, why, counts, table.pattern)


def codes_of(column: Column, theirs: ColumnProfile, why: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Returns what each code seems to stand for, none where all are spelt as ours; and what somebody has to look at."""
    spelt = {value.lower() for value in column.one_of}
    often = [code for code, rows in theirs.values.items() if rows >= RARE * theirs.there]
    some = [code for code, rows in theirs.values.items() if rows >= FEW_ROWS]
    decoded = terms.decode(column, list(theirs.values), least=1.0) | terms.decode(column, some)
    codes = [code for code in theirs.values if code.isprintable() and (code in often or code in decoded)]
    unknown = [code for code in codes if code not in decoded]
    if unknown:
        # The most frequent code stands for the first value that none stands for: declarations list the usual first.
        left = [value for value in column.one_of if value not in decoded.values()] or [column.one_of[-1]]
        decoded |= {code: left[min(at, len(left) - 1)] for at, code in enumerate(unknown)}
        why = f"what do {', '.join(map(quote, unknown))} stand for?"
    if all(code.lower() in spelt for code in codes):
        return (), why
    return tuple((code, decoded[code]) for code in codes), why


def ambiguity(theirs: ColumnProfile) -> str:
    """Tells where days and months of a column cannot be told apart."""
    shares = theirs.moments or theirs.days
    fitting = [pattern.split(" ")[0].split("T")[0] for pattern, share in shares.items() if share >= NEARLY]
    orders = {pattern for pattern in fitting if "yyyyMM" not in pattern and not pattern.startswith("yyyy")}
    return f"day and month cannot be told apart: {' or '.join(sorted(orders))}?" if len(orders) > 1 else ""


# ---- several tables ------------------------------------------------------------------------------------------------


def complete(best: Draft, dataset: Dataset, profile: Profile, drafts: Mapping[str, Draft], taken: set[str]) -> Draft:
    """Returns the draft with what another table has of the same rows, where both share a key."""
    has = {each.column for each in best.guesses if each.confidence >= SURE}
    lacking = [column for column in dataset.columns if column.name not in has]
    if not any(column.required for column in lacking):
        return best
    own = {column.name for column in best.table.keys}
    offers = []
    for link in profile.links:
        other = next(table for table in profile.tables if table.pattern == link.to_table)
        if link.table != best.table.pattern or link.column not in own or link.to_table in taken:
            continue
        more = guess(dataset, other, [column for column in lacking if not column.references], profile, drafts)
        more = tuple(each for each in more if each.confidence >= SURE and each.column != dataset.key)
        if more:
            offers.append((sum(each.confidence for each in more), link, other, more))
    if not offers:
        return best
    _, link, other, more = max(offers, key=lambda each: each[0])
    found = {each.column: each for each in (*best.guesses, *more)}
    guesses = tuple(found[column] for column in dataset.names if column in found)
    return best._replace(guesses=guesses, join=link, other=other)


def narrow(best: Draft, dataset: Dataset, drafts: Mapping[str, Draft]) -> Draft:
    """Returns the draft with a condition where stays are made of all visits: of those with an inpatient code alone."""
    visits = drafts.get("visits")
    if dataset.name != "admissions" or visits is None or visits.table.pattern != best.table.pattern:
        return best
    types = next((each for each in visits.guesses if each.column == "visit_type" and each.names), None)
    codes = [code for code, value in (types.values if types else ()) if value == "Inpatient"]
    return best._replace(where=(types.names[0], tuple(codes))) if types and codes else best


def fill(best: Draft, dataset: Dataset, reading: Reading) -> Draft:
    """Returns the draft with something for each column that must not be blank, marked as a guess."""
    found = {each.column: each for each in best.guesses}
    for column in dataset.columns:
        if column.required and column.name not in found:
            found[column.name] = stand_in(column, dataset, best, reading)
    return best._replace(guesses=tuple(found[name] for name in dataset.names if name in found))


def stand_in(column: Column, dataset: Dataset, best: Draft, reading: Reading) -> Guess:
    """Returns a guess where no column speaks for itself."""
    table = best.table
    why = "no column seems to hold it"
    if column.name == dataset.key:
        names = unique_together(best, reading)
        return Guess(column.name, names, why="no column alone is a key; these together are" if names[1:] else why)
    if column.one_of:
        value = terms.USUAL.get(column.name, column.one_of[0])
        return Guess(column.name, value=value, why=f"{why}; is it the same in all rows?")
    fitting = [(holds(column, each) * each.columns[0].there, each) for each in candidates(table)]
    share, candidate = max(fitting, key=lambda each: each[0])
    if column.type == "text" or share < 0.5 * table.rows:
        return Guess(column.name, value="0" if column.type == "decimal" else "unknown", why=why)
    return made_of(column, candidate, LEAST, table)._replace(why=f"{why}; is it this one?")


def unique_together(best: Draft, reading: Reading) -> tuple[str, ...]:
    """Returns the fewest columns among those in use that tell rows apart; the first alone where none do."""
    references = {*CATALOG[best.dataset].parents}
    own = [each for each in best.guesses if each.table == best.table.pattern]
    names = list(dict.fromkeys(name for each in own for name in each.names))
    parents = {name for each in own if each.column in references for name in each.names}
    for size in (2, 3, 4):
        for some in combinations(names, size):
            if (not parents or parents & {*some}) and reading.is_unique(best.table, some):
                return some
    return tuple(names) or (best.table.columns[0].name,)


# ---- the text of a declaration -------------------------------------------------------------------------------------


def render(name: str, reading: Reading, drafts: Mapping[str, Draft]) -> tuple[str, dict[str, str]]:
    """Returns the text of a draft, and its SQL by file name."""
    profile = reading.profile
    lines = [*head(name, profile, drafts), "datasets:"]
    files = {}
    for dataset in CATALOG:
        if dataset not in drafts:
            lines.append(f"  # TODO no file seems to hold {dataset}; left out, it has no rows on any date")
            continue
        lines.append(f"  {dataset}:")
        if drafts[dataset].is_sql:
            files[f"{dataset}.sql"] = sql(drafts[dataset])
            lines += [f"    {line}" for line in sql_lines(dataset, drafts[dataset])]
        else:
            lines += [f"    files: {quote(drafts[dataset].table.pattern)}", "    columns:"]
            lines += [f"      {cell(each)}" for each in drafts[dataset].guesses]
    if not drafts:
        lines[-1] += " {}"
    used = {table.pattern for each in drafts.values() for table in (each.table, each.other) if table}
    if unused := [table.pattern for table in profile.tables if table.pattern not in used]:
        lines.append(f"# Files of which no dataset is made: {', '.join(unused)}")
    lines += [f"# Not read: {each}" for each in profile.unread]
    return "\n".join(lines) + "\n", files


def count_todo(*texts: str) -> int:
    """Returns the number of marks behind what a draft says."""
    return sum(len(re.findall(r"^[^#\n]*(?:#|--) TODO|^  # TODO", text, re.M)) for text in texts)


def head(name: str, profile: Profile, drafts: Mapping[str, Draft]) -> Iterator[str]:
    """Yields the lines that say how the files are written."""
    first = profile.tables[0]
    yield "# Drafted by `make profile` from the files of one date: look at each TODO. docs/sources.md has what can be"
    yield f"# declared, the page profile-{name}.html what the files hold. Shares say how much speaks for a guess."
    yield f"doc: Export of {name}"
    own = {table.encoding for table in profile.tables if table.encoding.name != "utf-8"}
    guesses = [each for draft in drafts.values() for each in draft.guesses]
    moments = [column for table in profile.tables for column in table.columns if column.kind == "timestamp"]
    with_offset = moments and all(column.offsets >= NEARLY for column in moments)
    yield "time_zone: UTC" + ("" if with_offset else "  # TODO the zone of your clocks, as in Europe/Paris")
    encoding = max(own, key=lambda each: len(each.others), default=first.encoding)
    others = f"  # TODO or {', '.join(encoding.others)}: look at the names on the page" if encoding.others else ""
    yield f"encoding: {encoding.name}{others}"
    forms = [table.dialect for table in profile.tables for _ in table.columns]
    form = max(dict.fromkeys(forms), key=forms.count)
    odd = [table.pattern for table in profile.tables if table.dialect.separator != form.separator]
    note = f"  # TODO {', '.join(odd)} differ: a source has one separator" if odd else ""
    yield f"separator: {json.dumps(form.separator)}{note}"
    yield f"quote: {json.dumps(form.quote)}"
    yield f'decimal_mark: "{profile.decimal_mark}"'
    dates, timestamps = profile.best("days", ""), moment_pattern(profile, guesses)
    if dates:
        yield f"dates: {quote(dates)}{alternatives(profile, 'days', dates)}"
    if timestamps:
        yield f"timestamps: {quote(timestamps)}{alternatives(profile, 'moments', timestamps)}"
    if profile.nulls:
        counts = ", ".join(f"{quote(text)} {rows:,}" for text, rows in profile.nulls.items())
        yield f"nulls: [{', '.join(json.dumps(text, ensure_ascii=False) for text in profile.nulls)}]  # {counts}"


def moment_pattern(profile: Profile, guesses: Sequence[Guess]) -> str:
    """Returns the pattern of timestamps: that of most columns, or that of dates with a time beside or none."""
    best, day = profile.best("moments", ""), profile.best("days", "")
    kinds = {column.name for dataset in CATALOG.values() for column in dataset.columns if column.type == "timestamp"}
    moments = [each for each in guesses if each.column in kinds and each.names]
    columns = {(table.pattern, column.name): column for table in profile.tables for column in table.columns}
    bare = [each for each in moments if len(each.names) == 1 and columns[each.table, each.names[0]].kind == "date"]
    if bare and day:
        return f"{day}[{best[len(day) :]}]" if best.startswith(day) else f"{day}[ {TIME}]"
    return best or (f"{day} {TIME}" if day and any(len(each.names) > 1 for each in moments) else "")


def alternatives(profile: Profile, what: str, best: str) -> str:
    """Returns a comment with the share of values that fit the best pattern, and that fit with day and month swapped."""
    found, of = dict[str, float](), 0
    for column in (column for table in profile.tables for column in table.columns):
        shares: Mapping[str, float] = getattr(column, what)
        if max(shares.values(), default=0.0) >= NEARLY:
            of += column.there
            for pattern, share in shares.items():
                found[pattern] = found.get(pattern, 0.0) + share * column.there
    if best not in found:
        return ""
    swapped = best.replace("dd", "%").replace("MM", "dd").replace("%", "MM")
    own, other = found[best] / of, found.get(swapped, 0.0) / of if not best.startswith("yyyy") else 0.0
    if own - other < 0.02:
        return (
            f"  # TODO day and month cannot be told apart: {swapped} fits {other:.0%} of the values, this one {own:.0%}"
        )
    return f"  # fits {own:.1%}" + (f", {swapped} {other:.1%}" if other else "")


def cell(each: Guess) -> str:
    """Returns the line of a column, with how sure it is and with the codes' counts."""
    names = quote(each.names[0]) if len(each.names) == 1 else f"[{', '.join(map(quote, each.names))}]"
    if each.value is not None:
        text = f"{{value: {quote(each.value)}}}"
    elif each.values:
        codes = ", ".join(f"{json.dumps(code, ensure_ascii=False)}: {quote(value)}" for code, value in each.values)
        text = f"{{from: {names}, values: {{{codes}}}}}"
    elif each.as_timestamp:
        text = f"{{from: {names}, as: timestamp}}"
    else:
        text = names if len(each.names) == 1 else f"{{from: {names}}}"
    return f"{each.column}: {text}{comment(each)}"


def comment(each: Guess) -> str:
    """Returns what stands behind a guess: TODO and why where somebody has to look, else how much speaks for it."""
    counts = ", ".join(f"{quote(code)} {rows:,}" for code, rows in each.counts)
    counts = f" ({counts})" if counts else ""
    return f"  # TODO {each.why}{counts}" if each.why else f"  # {each.confidence:.0%}{counts}"


def sql_lines(dataset: str, each: Draft) -> Iterator[str]:
    """Yields the lines of a dataset that SQL makes."""
    yield f"sql: {dataset}.sql"
    tables = [table for table in (each.table, each.other) if table]
    yield f"tables: {{{', '.join(f'{view(table)}: {quote(table.pattern)}' for table in tables)}}}"


def view(table: TableProfile) -> str:
    """Returns the name of a table in SQL."""
    return table.name if NAME.fullmatch(table.name) else "t"


def sql(each: Draft) -> str:
    """Returns the SQL of a dataset, a column a line."""
    views = {table.pattern: view(table) for table in (each.table, each.other) if table}
    lines = [f"-- One row per record of {each.table.pattern}. Drafted by `make profile`: look at each TODO.", "select"]
    last = len(each.guesses) - 1
    for at, found in enumerate(each.guesses):
        comma, note = ("," if at < last else ""), comment(found).replace("  # ", "  -- ")
        lines.append(f"    {expression(found, views.get(found.table, ''))} as {found.column}{comma}{note}")
    lines.append(f"from {views[each.table.pattern]}")
    if each.join and each.other:
        one, other = views[each.table.pattern], views[each.other.pattern]
        lines.append(f"left join {other} on {one}.{name_of(each.join.column)} = {other}.{name_of(each.join.to_column)}")
    if each.where:
        column, codes = each.where
        listed = ", ".join(map(literal, codes))
        lines.append(f"where {views[each.table.pattern]}.{name_of(column)} in ({listed})  -- TODO are these the stays?")
    return "\n".join(lines) + "\n"


def expression(each: Guess, table: str) -> str:
    """Returns a column of ours as SQL makes it; texts stay in the source's notation."""
    if each.value is not None:
        return literal(each.value)
    columns = [f"{table}.{name_of(name)}" for name in each.names]
    if each.values:
        cases = " ".join(f"when {literal(code)} then {literal(value)}" for code, value in each.values)
        return f"case {columns[0]} {cases} else {columns[0]} end"
    return columns[0] if len(columns) == 1 else f"concat_ws(' ', {', '.join(columns)})"


def name_of(name: str) -> str:
    """Returns a name as Spark SQL has it."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f"`{name.replace('`', '``')}`"


def literal(text: str) -> str:
    """Returns a text as Spark SQL has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote(text: str) -> str:
    """Returns a text as YAML has it, quoted where it would be read as something else."""
    is_plain = re.fullmatch(r"[A-Za-z_][\w ./-]*", text) and text[-1:] != " "
    words = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return text if is_plain and text.lower() not in words else json.dumps(text, ensure_ascii=False)
