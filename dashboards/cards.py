"""Reads conf/dashboards.yml: dashboards, their cards, and the SQL that computes a card's figures.

The SQL is in Metabase's form: a template tag is a filter's value (the dates `{{from}}` and `{{to}}`) or a filter's
whole condition (all others), and a clause in `[[ ]]` applies only if that filter is set. `bind` returns plain SQL.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from dashboards import measures
from jobs import settings

FILE = settings.ROOT / "conf" / "dashboards.yml"
DAYS = 365  # of a period without a beginning
CHARTS = ("headline", "line", "area", "bar", "row", "pie", "heat", "table")
FORMATS = ("integer", "number", "money", "percent", "hours", "days")
# The grains of an axis of time, the finest first, and about how many days each of them has.
GRAINS = {"day": 1, "week": 7, "month": 30, "quarter": 91, "year": 365, "decade": 3652}
# How many steps of time a chart draws so that each can still be seen; for longer periods it takes a coarser grain.
STEPS = {"line": 1000, "area": 1000, "bar": 400, "heat": 400}
ROWS = 1900  # of such a chart: Metabase shows 2,000 rows of a query and drops the rest silently
FILTERS = {  # the template tags that each of them sets
    "period": ("from", "to"),
    "department": ("department",),
    "visit_type": ("visit_type",),
    "dataset": ("dataset",),
}
FIGURE = re.compile(r"(?:(\d+) \* )?([a-z][a-z0-9_]*)(?: / ([a-z][a-z0-9_]*))?(?: / (\d+))?(?: as ([a-z]+))?")


class Misdeclared(ValueError):
    """Signals that conf/dashboards.yml cannot be shown as declared; the message names dashboard, card and fault."""


@dataclass(frozen=True)
class Figure:
    """Declares a figure over the rows of a report: times * sum(column) / sum(per) / divided; null if sum(per) is 0."""

    label: str
    column: str
    per: str | None
    times: int
    divided: int
    format: str

    @property
    def name(self) -> str:
        """Returns the name of the result column that holds the figure."""
        return name_of(self.label)

    @property
    def sql(self) -> str:
        """Returns the SQL expression of the figure, with its name; quotients have four decimals."""
        if self.per is None:
            return f"coalesce(sum({self.column}), 0) as {self.name}"
        times = f"{self.times}.0 * " if self.times != 1 else "1.0 * "
        divided = f" / {self.divided}" if self.divided != 1 else ""
        return f"round({times}sum({self.column}) / nullif(sum({self.per}), 0){divided}, 4) as {self.name}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Declares a question and its answer: figures of a report broken down `by` columns, or the `columns` of a table."""

    title: str
    answers: str
    report: str
    chart: str
    size: tuple[int, int]
    figures: tuple[Figure, ...] = ()
    columns: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    fold: tuple[str, str] | None = None
    filters: tuple[str, ...] = ()  # those of its dashboard that its report has columns for
    stacked: bool = False
    goal: float | None = None
    definition: str = ""  # of the measure that it shows, if it shows one
    compare: bool = True  # a headline of a period is held against the period before
    only: str | None = None  # a column: rows where it is null are left out
    clip: bool = False  # on pages, one bar far above the others is cut, and says so
    begins: str | None = None  # the column of its report whose first day with more than 0 is where the data begin
    whole: str | None = None  # the grain of its report's rows, where that is a month: a period has those that end in it
    order: str | None = None  # a column, `desc` behind it or not; else by time, else the greatest figure first
    limit: int | None = None
    none: str | None = None  # the text that a page shows if there are no rows

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Returns the names of the template tags in the card's SQL."""
        return tuple(tag for name in self.filters for tag in FILTERS[name])

    @cached_property
    def result(self) -> tuple[str, ...]:
        """Returns the columns of the card's result, in order."""
        if self.columns:
            return self.columns
        leading = ("until", "since") if self.is_compared else self.by
        return (*leading, *(self.fold or [figure.name for figure in self.figures]))

    @property
    def format(self) -> str:
        """Returns the format of the first figure, which is also that of folded figures."""
        return self.figures[0].format if self.figures else "integer"

    @property
    def grain(self) -> str | None:
        """Returns the declared grain of the time axis if the chart takes a coarser one for long periods, else None."""
        finer = list(GRAINS)[:-1] if self.chart in STEPS else []
        return next((name for name in self.by if name in finer), None)

    @property
    def coarser(self) -> tuple[str, ...]:
        """Returns the coarser grains that the chart may take for long periods, finest first."""
        return tuple(GRAINS)[list(GRAINS).index(self.grain) + 1 :] if self.grain else ()

    @property
    def summed(self) -> tuple[str, ...]:
        """Returns the columns of the report that the card sums."""
        names = [name for figure in self.figures for name in (figure.column, figure.per) if name]
        return tuple(dict.fromkeys(names))

    @property
    def is_compared(self) -> bool:
        """Tells whether the card shows one figure of this period and of the period before."""
        return self.chart == "headline" and "period" in self.filters and self.compare

    @cached_property
    def sql(self) -> str:
        """Returns the card's query with template tags: one row per combination of `by`, and per figure if folded."""
        if self.is_compared:
            return "\n".join(self.comparison)
        table = f"reports.{self.report}"
        ctes, source, where = [], [f"from {table}"], ["where true"]
        if "period" in self.filters:
            ctes, source = [PERIOD], [f"from {table} cross join period"]
            where = [f"where {table}.day between period.first_day and period.last_day"]
        where += [f"    {condition}" for condition in self.conditions]
        if self.columns:
            names = [f"select {', '.join(self.columns)}"]
            return "\n".join([*leading(ctes), *names, *source, *where, *self.ending])
        breakdown = [starting(f"'{name}'", name) if name in GRAINS else name for name in self.by]
        if self.grain:
            needed = dict.fromkeys(["day", *(name for name in self.by if name not in GRAINS), *self.summed])
            ctes += [cte("chosen", [f"select {', '.join(needed)}", *source, *where]), self.coarsening(self.grain)]
            breakdown[self.by.index(self.grain)] = starting("grain.name", self.grain)
            source, where = ["from chosen cross join grain"], []
        names = [f"select {', '.join([*breakdown, *(figure.sql for figure in self.figures)])}"]
        grouped = [f"group by {', '.join(map(str, range(1, len(self.by) + 1)))}"] if self.by else []
        query = self.folded([*names, *source, *where, *grouped])
        return "\n".join([*leading(ctes), *query, *self.ending])

    @property
    def conditions(self) -> list[str]:
        """Returns the conditions on the report's rows, except for the period, each of which begins with `and`."""
        filters = [f"[[and {{{{{tag}}}}}]]" for name in self.filters if name != "period" for tag in FILTERS[name]]
        return filters + ([f"and reports.{self.report}.{self.only} is not null"] if self.only else [])

    @property
    def comparison(self) -> list[str]:
        """Returns the query of a figure in this period and the period before, line by line.

        It has two rows, the older first, or none if the current figure is null: Metabase would show the previous figure
        as the current one. Each row has the first and the last day of its period: from a single date, Metabase would
        infer a unit, and show "2025" for 365 days or "January 2026" for any 30. The older figure is null if the data
        begin within its period, since the period is then only partly recorded.
        """
        table = f"reports.{self.report}"
        expression, _, name = self.figures[0].sql.rpartition(" as ")
        return [
            f"with {PERIOD},",
            "periods as (",
            "    select last_day as until, first_day as since, true as is_current from period",
            "    union all",
            "    select first_day - 1, first_day - (last_day - first_day + 1), false from period",
            "),",
            "figures as (",
            f"    select greatest(until, {FIRST_DAY}) as until, greatest(since, {FIRST_DAY}) as since,",
            f"        case when is_current or since >= (select min(day) from {table} where {self.begins} > 0)",
            f"            then {expression} end as {name}",
            f"    from periods left join {table} on {table}.day between since and until",
            *(f"        {condition}" for condition in self.conditions),
            "    group by periods.until, periods.since, periods.is_current",
            ")",
            f"select {', '.join(self.result)}",
            "from figures",
            f"where (select {self.figures[0].name} from figures order by until desc limit 1) is not null",
            "order by until",
        ]

    def folded(self, query: list[str]) -> list[str]:
        """Returns a query with one row per figure in place of one column per figure, if the card folds its figures."""
        if not self.fold:
            return query
        pairs = ", ".join(f"('{figure.label}', {figure.name})" for figure in self.figures)
        return [
            f"select {', '.join([*self.by, *self.fold])}",
            "from (",
            *(f"    {line}" for line in query),
            ") as sums",
            f"cross join lateral (values {pairs}) as folded ({', '.join(self.fold)})",
        ]

    def coarsening(self, finest: str) -> str:
        """Returns the CTE `grain`: the finest grain from `finest` on at which the CTE `chosen` has few enough steps."""
        factors = [f"count(distinct {name})" for name in self.by if name not in GRAINS]
        series = " * ".join([*factors, *([str(len(self.figures))] if self.fold else [])]) or "1"
        *finer, coarsest = (finest, *self.coarser)
        tests = [
            f"when span < {GRAINS[name] * STEPS[self.chart]} and span * series < {GRAINS[name] * ROWS} then '{name}'"
            for name in finer
        ]
        return cte(
            "grain",
            [
                f"select case {tests[0]}",
                *(f"    {test}" for test in tests[1:]),
                f"    else '{coarsest}' end as name",
                f"from (select max(day) - min(day) as span, {series} as series from chosen) as extent",
            ],
        )

    @property
    def ending(self) -> list[str]:
        """Returns the clauses `order by`, which leaves no ties, and `limit`."""
        keys = [self.order] if self.order else []
        if not self.order and self.figures and not set(self.by) & set(GRAINS) and not self.fold:
            keys = [f"{self.figures[0].name} desc nulls last"]
        named = {key.split()[0] for key in keys}
        keys += [name for name in (*self.by, *(self.fold or ())[:1], *self.columns) if name not in named]
        order = [f"order by {', '.join(keys)}"] if keys else []
        return [*order, *([f"limit {self.limit}"] if self.limit else [])]


@dataclass(frozen=True)
class Dashboard:
    """Declares a page of cards with common filters."""

    name: str
    about: str
    filters: tuple[str, ...]
    cards: tuple[Card, ...]

    @property
    def slug(self) -> str:
        """Returns the dashboard's name as it stands in file names."""
        return self.name.lower().replace(" ", "-")


PERIOD = f"""\
period as (
    select
        coalesce([[{{{{from}}}}::date,]] coalesce([[{{{{to}}}}::date,]] day) - {DAYS - 1}) as first_day,
        coalesce([[{{{{to}}}}::date,]] day) as last_day
    from ops.newest
)"""
FIRST_DAY = "'0001-01-01'::date"  # a period or decade that begins earlier begins here: there is no year 0


def cte(name: str, lines: Sequence[str]) -> str:
    """Returns a common table expression with this name and body."""
    return "\n".join([f"{name} as (", *(f"    {line}" for line in lines), ")"])


def leading(ctes: Sequence[str]) -> list[str]:
    """Returns the clause `with` as a list of at most one text; empty without CTEs."""
    return ["with " + ",\n".join(ctes)] if ctes else []


def starting(grain: str, column: str) -> str:
    """Returns the SQL of the first day of the time step that contains `day`; `grain` is a SQL expression."""
    return f"greatest(date_trunc({grain}, day)::date, {FIRST_DAY}) as {column}"


def load(text: str | None = None) -> list[Dashboard]:
    """Returns the dashboards of conf/dashboards.yml, or of a text; raises Misdeclared with a sentence."""
    whole = declared(text)
    defined = {name: one.definition for name, one in measures.load(whole.get("measures", {})).items()}
    return [dashboard(one, whole["reports"], defined) for one in whole["dashboards"]]


def declared(text: str | None = None) -> dict[str, Any]:
    """Returns the content of conf/dashboards.yml, or of a text."""
    # libyaml's loader accepts the same as safe_load, in a tenth of the time.
    return yaml.load(FILE.read_text() if text is None else text, yaml.CSafeLoader)


def dashboard(
    declared: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]], defined: Mapping[str, str]
) -> Dashboard:
    """Returns a declared dashboard; `defined` has the definitions of measures. Raises Misdeclared for any fault."""
    name, filters = declared["name"], tuple(declared["filters"])
    if unknown := set(filters) - set(FILTERS):
        raise Misdeclared(f"{name} has the filter {min(unknown)!r}; there are {', '.join(FILTERS)}.")
    cards = []
    for each in declared["cards"]:
        try:
            own = {name: value for name, value in each.items() if name != "measure"}
            own |= {"definition": defined[each["measure"]]} if "measure" in each else {}
            cards.append(card(own, filters, reports))
        except (Misdeclared, TypeError, KeyError) as error:
            raise Misdeclared(f"{name}, card {each.get('title')!r}: {error}") from None
    titles = [one.title for one in cards]
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise Misdeclared(f"{name} has two cards {twice[0]!r}.")
    return Dashboard(name, declared["about"], filters, tuple(cards))


def card(declared: Mapping[str, Any], filters: Sequence[str], reports: Mapping[str, Mapping[str, Any]]) -> Card:
    """Returns a declared card with those filters of its dashboard that its report has; raises Misdeclared."""
    given = dict(declared)
    figures = tuple(figure(label, text) for label, text in given.pop("figures", {}).items())
    lists: dict[str, Any] = {
        name: tuple(given.pop(name)) for name in ("size", "by", "columns", "fold") if name in given
    }
    if given["report"] not in reports:
        raise Misdeclared(f"there is no report {given['report']!r}")
    report = reports[given["report"]]
    own = tuple(name for name in filters if name in report["filters"])
    made = Card(figures=figures, filters=own, begins=report.get("begins"), whole=report.get("whole"), **lists, **given)
    faults = [
        (made.chart not in CHARTS, f"{made.chart!r} is not a chart; there are {', '.join(CHARTS)}"),
        (not made.answers.strip(), "it does not say what it answers"),
        (bool(made.figures) == bool(made.columns), "it needs figures or columns, and not both"),
        (bool(made.columns) and made.chart != "table", "only a table shows columns as they are"),
        (made.chart == "headline" and (made.by or made.fold or len(figures) != 1), "a headline is one figure"),
        (made.chart in ("line", "area", "bar", "row", "pie") and len(made.result) > 3, "a chart shows two breakdowns"),
        (made.chart == "heat" and len(made.by) != 2, "a heat map needs two columns to break down by"),
        (made.is_compared and not made.begins, "its report does not say by which column its data begin"),
        (not 0 < made.size[0] <= 24 or made.size[1] < 1, "its size does not fit a grid of 24 columns"),
    ]
    for is_wrong, sentence in faults:
        if is_wrong:
            raise Misdeclared(sentence)
    return made


def figure(label: str, text: str) -> Figure:
    """Parses a figure such as `100 * column / column / number as format`; raises Misdeclared if it has another form."""
    found = FIGURE.fullmatch(text)
    if not found or (found[5] or "integer") not in FORMATS:
        raise Misdeclared(f"the figure {label!r} is not of the form `100 * column / column / number as format`")
    times, column, per, divided, form = found.groups()
    return Figure(label, column, per, int(times or 1), int(divided or 1), form or "integer")


def name_of(label: str) -> str:
    """Returns the column name of a label."""
    return re.sub(r"\W+", "_", label.lower())


def bind(sql: str, report: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns a card's SQL as Metabase expands it when these filters are set, with psycopg's parameters.

    `given` holds a date for each of `from` and `to`, and a list of values for each other filter.
    """

    def clause(found: re.Match[str]) -> str:
        tags = re.findall(r"{{(\w+)}}", found[1])
        return found[1] if all(tag in given for tag in tags) else ""

    def tag(found: re.Match[str]) -> str:
        name = found[1]
        return f"%({name})s" if name in ("from", "to") else f"reports.{report}.{name} = any(%({name})s)"

    plain = re.sub(r"\[\[(.*?)\]\]", clause, sql.replace("%", "%%"))
    used = set(re.findall(r"{{(\w+)}}", plain))
    return re.sub(r"{{(\w+)}}", tag, plain), {name: value for name, value in given.items() if name in used}
