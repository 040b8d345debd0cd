"""Writes the draft of a source's declaration as text: its YAML, and the SQL of datasets that columns alone cannot say.

What is guessed is marked TODO, with the reason. DESIGN section 8 has what a declaration says.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from jobs.catalog import CATALOG
from jobs.column_matching import Draft, Guess, quote
from jobs.dataset import NAME
from jobs.profiling import NEARLY, TIME, Profile, Reading, TableProfile


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
    """Returns the line of a column, with the confidence in it and the counts of its codes."""
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
    """Returns the comment behind a guess: TODO and the reason if a person must check it, else the confidence in it."""
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
