"""Writes docs/benchmarks.md and its chart from docs/benchmarks.json: `python -m benchmarks.report`."""

import json
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from benchmarks.peer import STAGES
from jobs import settings

RESULTS = settings.ROOT / "docs" / "benchmarks.json"
PAGE = settings.ROOT / "docs" / "benchmarks.md"
CHART = settings.ROOT / "docs" / "benchmarks.svg"
MARK = "<!-- What follows is written by `python -m benchmarks.report`. -->"
Run = dict[str, Any]  # all measurements of one scale from one benchmark

ROWS = (
    ("platform", "first load"),
    ("platform", "forced rerun"),
    ("platform", "one per cent changed"),
    ("platform", "first load by source"),
    ("pandas", "first load"),
    ("pandas", "rerun"),
    ("duckdb", "first load"),
    ("duckdb", "rerun"),
    ("duckdb", "one per cent changed"),
)
DATES = {"alone": "first", "next date": "next"}  # measured for the platform alone, each as a separate run
NAMES = {"platform": "platform", "pandas": "pandas peer", "duckdb": "DuckDB peer", "source": "hospital's own export"}


def put(run: Run) -> None:
    """Adds the measurements of one scale, replacing older ones of the same kind."""
    runs = {kind(old): old for old in measured()} if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps([*(runs | {kind(run): run}).values()], indent=1) + "\n")


def measured(alone: bool | None = None) -> list[Run]:
    """Returns all runs, or only those of the platform alone (True) or beside the peers (False), by ascending scale."""
    runs = [run for run in json.loads(RESULTS.read_text()) if alone in (None, is_alone(run))]
    return sorted(runs, key=lambda run: float(run["scale"]))


def kind(run: Run) -> tuple[str, ...]:
    """Returns the scale and what is measured of it; for the platform alone, also its executors."""
    return (run["scale"], run["measurements"][0]["what"], *(run["spark"].values() if is_alone(run) else ()))


def is_alone(run: Run) -> bool:
    return run["measurements"][0]["what"] in DATES


def middle(run: Run, who: str, what: str, value: Callable[[Run], float]) -> float | None:
    """Returns the median over the repeats; None if nothing was measured."""
    values = [value(m) for m in run["measurements"] if (m["who"], m["what"]) == (who, what)]
    return median(values) if values else None


def seconds(run: Run, who: str, what: str = "first load") -> float | None:
    return middle(run, who, what, lambda m: m["seconds"])


def stage(run: Run, who: str, name: str, what: str = "first load") -> float | None:
    return middle(run, who, what, lambda m: m["stages"].get(name, 0.0))


def rest(run: Run, who: str, what: str) -> float | None:
    """Returns the seconds outside all stages: process starts, Luigi, gaps between layers."""
    return middle(run, who, what, lambda m: m["seconds"] - sum(m["stages"].get(name, 0.0) for name in STAGES))


# ---- targets -------------------------------------------------------------------------------------------------------


def cold(run: Run) -> float | None:
    parts = [seconds(run, "platform", what) for what in ("make up", "cold run")]
    return sum(part for part in parts if part is not None) if None not in parts else None


def whole(who: str, what: str = "first load") -> Callable[[Run], float | None]:
    return lambda run: seconds(run, who, what)


def part(who: str, name: str, what: str = "first load") -> Callable[[Run], float | None]:
    return lambda run: stage(run, who, name, what)


def ordinary(what: str) -> Callable[[Run], float | None]:
    """Returns a function for the median cost of an ordinary date: CPU seconds, or Spark jobs."""
    amounts: dict[str, Callable[[Run], float]] = {
        "cpu": lambda m: sum(m["cpu_seconds"].values()),
        "jobs": lambda m: m["spark_jobs"],
    }
    return lambda run: middle(run, "platform", "ordinary date", amounts[what])


TARGETS = (  # SCALE, what is compared, the allowed ratio, the two values; or one value and None
    ("1", "first load, warm, to the pandas peer", 4.0, whole("platform"), whole("pandas")),
    ("1", "first load from a stopped stack, `make up` included, to the pandas peer", 12.0, cold, whole("pandas")),
    (
        "1",
        "an ordinary date, warm, by `make run`, to the pandas peer's first load",
        2.0,
        whole("platform", "ordinary date"),
        whole("pandas"),
    ),
    (
        "1",
        "thirty ordinary dates by `make backfill`, to one of them",
        4.0,
        whole("platform", "backfill"),
        whole("platform", "ordinary date"),
    ),
    (
        "1",
        "an ordinary date that comes from a source, to one in the platform's own files",
        1.3,
        whole("platform", "ordinary date by source"),
        whole("platform", "ordinary date"),
    ),
    ("1", "CPU seconds of an ordinary date", 30.0, ordinary("cpu"), None),
    ("1", "Spark jobs of an ordinary date", 90.0, ordinary("jobs"), None),
    ("100", "first load to the pandas peer", 0.25, whole("platform"), whole("pandas")),
    ("100", "first load to the DuckDB peer", 1.0, whole("platform"), whole("duckdb")),
    (
        "100",
        "forced rerun, nothing changed, to its first load",
        0.4,
        whole("platform", "forced rerun"),
        whole("platform"),
    ),
    ("100", "its gold to gold's first load", 0.15, part("platform", "gold", "forced rerun"), part("platform", "gold")),
    ("100", "1 % changed, to its first load", 0.45, whole("platform", "one per cent changed"), whole("platform")),
    (
        "100",
        "conversion of the same hospital's own export, to the first load of its files",
        0.2,
        part("platform", "bronze", "first load by source"),
        whole("platform"),
    ),
    ("100", "gold to COPY without indexes", 3.5, part("platform", "gold"), part("limits", "copy", "limits")),
    ("100", "silver to the DuckDB peer's", 5.0, part("platform", "silver"), part("duckdb", "silver")),
    ("100", "marts to the pandas peer's", 0.4, part("platform", "marts"), part("pandas", "marts")),
)


def targets(runs: list[Run]) -> Iterable[str]:
    """Yields a table of targets: ratios of seconds, and amounts."""
    yield from table("SCALE", "what, and to what", "target", "measured", "seconds", "")
    by_scale = {run["scale"]: run for run in runs}
    for scale, what, target, ours, theirs in TARGETS:
        run = by_scale.get(scale)
        above = ours(run) if run else None
        below = theirs(run) if run and theirs else None
        if above is None or (theirs and not below):
            yield row(scale, what, f"≤ {target:g}", "not measured", "", "")
            continue
        found = above / below if below else above
        told = f"{found:.2f}" if below else number(found)
        pair = f"{number(above)} : {number(below)}" if below else ""
        yield row(scale, what, f"≤ {target:g}", told, pair, "met" if found <= target else "**missed**")


# ---- tables --------------------------------------------------------------------------------------------------------


def table(*heads: str) -> Iterable[str]:
    yield row(*heads)
    yield "|" + " --- |" * len(heads)


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or not value else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def by_stage(run: Run) -> Iterable[str]:
    yield from table("who and what", "seconds", "from, to", *STAGES, "between")
    for who, what in ROWS:
        every = [m["seconds"] for m in run["measurements"] if (m["who"], m["what"]) == (who, what)]
        if every:
            stages = [number(stage(run, who, name, what)) for name in STAGES]
            span = f"{number(min(every))}, {number(max(every))}"
            yield row(f"{NAMES[who]}, {what}", number(median(every)), span, *stages, number(rest(run, who, what)))
    starting, running = (seconds(run, "platform", what) for what in ("make up", "cold run"))
    yield ""
    yield f"From a stopped stack: {number(starting)} s for `make up`, then {number(running)} s for the run."


def by_dataset(run: Run) -> Iterable[str]:
    """Yields a table with the seconds of each job of the platform, from the ledger."""
    first = [m for m in run["measurements"] if (m["who"], m["what"]) == ("platform", "first load")]
    layers = {layer: list(datasets) for m in first for layer, datasets in m["busy"].items()}
    yield from table("layer", "from its first start to its last end", "the jobs by themselves")
    for layer, datasets in layers.items():
        jobs = {name: median(m["busy"].get(layer, {}).get(name, 0.0) for m in first) for name in datasets}
        told = ", ".join(f"{name} {number(value)}" for name, value in jobs.items()) if len(jobs) > 1 else ""
        yield row(layer, number(stage(run, "platform", layer)), told)


def ordinary_dates(run: Run) -> Iterable[str]:
    """Yields a table of the dates after the first, one by one and as a backfill; nothing if none was measured."""
    found = [m for m in run["measurements"] if m["what"] in ("ordinary date", "ordinary date by source", "backfill")]
    if not found:
        return
    yield "Ordinary dates after it by `make run`, from own files or a source, then thirty by `make backfill`:"
    yield ""
    yield from table("what", "rows", "validated again", "seconds", *STAGES, "CPU seconds", "of which", "Spark jobs")
    for m in found:
        yield row(
            m["what"], f"{m['rows']:,}", f"{m['again']:,}", number(m["seconds"]),
            *(number(m["stages"].get(name)) for name in STAGES), number(sum(m["cpu_seconds"].values())),
            greatest(m["cpu_seconds"], "{:.0f}"), f"{m['spark_jobs']:,}",
        )  # fmt: skip
    yield ""


def costs(run: Run) -> Iterable[str]:
    yield from table(
        "who and what", "peak memory, GiB", "of which", "CPU seconds", "of which", "MinIO received, MB", "sent, MB"
    )
    for who, what in (("platform", "cold run"), *ROWS):
        measured = [m for m in run["measurements"] if (m["who"], m["what"]) == (who, what)]
        if not measured:
            continue
        memory, cpu = (
            {kind: median(m[name].get(kind, 0) for m in measured) for kind in measured[0][name]}
            for name in ("peak_mib", "cpu_seconds")
        )
        received, sent = (median(m["s3_bytes"][way] for m in measured) / 1e6 for way in ("received", "sent"))
        yield row(
            f"{NAMES[who]}, {what}",
            f"{memory.pop('all', 0) / 1024:.1f}",
            greatest({kind: size / 1024 for kind, size in memory.items()}, "{:.1f}"),
            number(sum(cpu.values())),
            greatest(cpu, "{:.0f}"),
            number(received),
            number(sent),
        )


def greatest(parts: dict[str, float], form: str) -> str:
    """Lists the parts above two per cent of the sum, largest first."""
    least = 0.02 * sum(parts.values())
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {form.format(value)}" for name, value in ordered if value > least)


def limits(runs: list[Run]) -> Iterable[str]:
    steps = ("read", "copy", "keys", "indexes", "foreign keys")
    yield from table(
        "SCALE", "reading the files", "COPY", "primary keys", "indexes", "foreign keys", "gold, first load"
    )
    for run in runs:
        found = [number(stage(run, "limits", step, "limits")) for step in steps]
        yield row(run["scale"], *found, number(stage(run, "platform", "gold")))


def scale_out() -> Iterable[str]:
    """Yields a table of what the platform takes alone for its first and next date, by scale and executors."""
    yield from table(
        "SCALE", "executors", "date", "rows", "revalidated", "seconds", *STAGES, "per million rows", "CPU seconds",
        "per million rows", "peak memory, GiB", "spilled, GB",
    )  # fmt: skip
    for run in measured(alone=True):
        [m], conf = run["measurements"], run["spark"]
        cores = int(conf["spark.executor.cores"] or conf["spark.cores.max"])
        count = int(conf["spark.cores.max"]) // cores
        cpu, rows = sum(m["cpu_seconds"].values()), m["rows"] + m["again"]
        memory = greatest({kind: size / 1024 for kind, size in m["peak_mib"].items() if kind != "all"}, "{:.1f}")
        yield row(
            run["scale"], f"{count} of {cores} core{'s' * (cores > 1)}, {conf['spark.executor.memory']}",
            DATES[m["what"]], f"{m['rows']:,}", f"{m['again']:,}", number(m["seconds"]),
            *(number(m["stages"].get(name)) for name in STAGES), number(m["seconds"] / rows * 1e6), number(cpu),
            number(cpu / rows * 1e6), f"{m['peak_mib']['all'] / 1024:.1f}: {memory}", number(m["spilled_bytes"] / 1e9),
        )  # fmt: skip


# ---- the page ------------------------------------------------------------------------------------------------------


def page(runs: list[Run]) -> str:
    lines = ["![Seconds by stage](benchmarks.svg)", "", "## Targets", "", *targets(runs), ""]
    for run in runs:
        machine, versions = run["machine"], ", ".join(f"{name} {v}" for name, v in run["versions"].items())
        lines += [
            f"## SCALE={run['scale']}",
            "",
            f"{sum(run['rows'].values()):,} rows, {run['bytes'] / 1e6:,.1f} MB of CSV; medians of {run['repeats']}. "
            f"{run['at']}, commit {run['commit'][:12]}, {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, Linux {machine['kernel']}. {versions}.",
            "",
            *by_stage(run),
            "",
            "Where the platform's seconds of a first load go:",
            "",
            *by_dataset(run),
            "",
            *ordinary_dates(run),
            "What it takes:",
            "",
            *costs(run),
            "",
        ]
    lines += ["## Limits", "", "Seconds:", "", *limits(runs), ""]
    if measured(alone=True):
        lines += [
            "## Scale out",
            "",
            "The platform alone: the first date on a stack that has just come up, then the next one:",
            "",
        ]
        lines += scale_out()
    return "\n".join(lines).rstrip() + "\n"


def chart(runs: list[Run]) -> str:
    """Draws seconds by stage as SVG, one panel per scale.

    Long because a Vega-Lite specification is one literal.
    """
    import vl_convert

    values = [
        {
            "scale": f"SCALE={run['scale']}",
            "who": f"{NAMES[who]}, {what}",
            "stage": name,
            "order": order,
            "seconds": value,
        }
        for run in runs
        for who, what in ROWS
        for order, name in enumerate([*STAGES, "between"])
        if (value := rest(run, who, what) if name == "between" else stage(run, who, name, what)) is not None
    ]
    names = [f"{NAMES[who]}, {what}" for who, what in ROWS]
    panel = {
        "width": 260,
        "height": {"step": 22},
        "mark": {"type": "bar", "height": 14},
        "encoding": {
            "y": {"field": "who", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 240}},
            "x": {"field": "seconds", "type": "quantitative", "stack": "zero", "title": "seconds"},
            "color": {
                "field": "stage",
                "type": "nominal",
                "sort": [*STAGES, "between"],
                "title": None,
                "scale": {
                    "domain": [*STAGES, "between"],
                    "range": ["#b08d57", "#8a9ba8", "#d4a72c", "#2f6f8f", "#d9d9d9"],
                },
                "legend": {"orient": "bottom"},
            },
            "order": {"field": "order", "type": "quantitative"},
        },
    }
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "data": {"values": values},
        "facet": {
            "field": "scale",
            "type": "nominal",
            "sort": [f"SCALE={run['scale']}" for run in runs],
            "title": None,
            "header": {"labelFontSize": 13},
        },
        "columns": 3,
        "spec": panel,
        "resolve": {"scale": {"x": "independent"}},
        "config": {"font": "sans-serif"},
    }
    return str(vl_convert.vegalite_to_svg(spec))


def main() -> None:
    runs = measured(alone=False)
    text = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(f"{text}{MARK}\n\n{page(runs)}")
    CHART.write_text(chart(runs))


if __name__ == "__main__":
    main()
