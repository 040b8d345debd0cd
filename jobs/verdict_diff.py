"""Describes the verdicts that a dry run would change: rows that flip, rows by reason, dates that would be stopped."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import product

from jobs import ledger, warehouse
from jobs.catalog import CATALOG
from jobs.dry_run import DIRECTIONS, Flips, Retrial, Run

FEW_DATES = 10  # up to so many are shown one by one


def flip_lines(trials: Mapping[str, Retrial], runs: Mapping[str, Mapping[date, Run]]) -> Iterator[str]:
    """Yields what was revalidated, and the rows that would flip by dataset, direction and reason."""
    flips: Flips = Counter()
    for name, trial in trials.items():
        again = [runs[name][day] for day in trial.counts]
        differ = any(run["rule_set"] != trial.dataset.rule_set for run in again)
        why = "its declaration differs" if differ else "its parents would come or go"
        dates = f"{len(again):,} {'date' if len(again) == 1 else 'dates'}"
        yield f"{name}: {why}; {dates} revalidated, {sum(run['bronze_rows'] for run in again):,} rows"
        flips += trial.flips
    yield "Rows that would flip" + ("" if flips else ": none")
    yield from (f"  {line}" for line in summed(flips))
    if 1 < len(days := sorted({day for _, day, _, _ in flips})) <= FEW_DATES:
        yield "By date"
        for each in days:
            of_day = Counter({key: rows for key, rows in flips.items() if key[1] == each})
            yield from (f"  {each}  {line}" for line in summed(of_day))


def summed(flips: Flips) -> Iterator[str]:
    """Yields a line for each dataset and direction, with the reasons that the rows would have, or had."""
    occurring = {(name, direction) for name, _, direction, _ in flips}
    for name, direction in (each for each in product(CATALOG, DIRECTIONS) if each in occurring):
        total, reasons = 0, Counter[str]()
        for (of, _, to, codes), rows in flips.items():
            if (of, to) == (name, direction):
                total += rows
                reasons.update(dict.fromkeys(filter(None, codes.split(";")), rows))
        named = ", ".join(f"{code} {rows:,}" for code, rows in reasons.most_common())
        yield f"{name:<12}{direction:<25}{total:>9,}" + (f"  ({named})" if named else "")


def reason_lines(
    connection: warehouse.Connection, trials: Mapping[str, Retrial], runs: Mapping[str, Mapping[date, Run]]
) -> Iterator[str]:
    """Yields the numbers of accepted and rejected rows, and of rows by reason, as they are and as they would be."""
    lines = []
    for name, trial in trials.items():
        again = [runs[name][day] for day in trial.counts]
        found = connection.execute(
            "select reason, sum(hits)::bigint from ops.reasons where run_id = any(%s) group by reason",
            [[run["run_id"] for run in again]],
        ).fetchall()
        now, then = Counter[str](), Counter[str]()
        for counts in trial.counts.values():
            then.update({"accepted": counts.accepted, "rejected": counts.rows - counts.accepted} | counts.hits)
        for run in again:
            now.update({"accepted": run["accepted"], "rejected": run["rejected"]})
        now.update(dict(found))
        codes = dict.fromkeys(["accepted", "rejected", *trial.dataset.reasons, *now])
        lines += [(name, code, now[code], then[code]) for code in codes if now[code] != then[code]]
    if lines:
        yield f"{'Rows by verdict and reason':<46}{'now':>10}{'then':>10}{'change':>10}"
    for name, code, before, after in lines:
        yield f"  {name:<12}{code:<32}{before:>10,}{after:>10,}{after - before:>+10,}"


def stop_lines(
    connection: warehouse.Connection, trials: Mapping[str, Retrial], runs: Mapping[str, Mapping[date, Run]]
) -> Iterator[str]:
    """Yields the threshold breaches that would stop a date before gold."""
    passed = dict(connection.execute("select made_from, true from ops.receipts where layer = 'override'").fetchall())
    lines = []
    for name, trial in trials.items():
        limits = {"rejected": trial.dataset.limit} | trial.dataset.limits
        for day, counts in trial.counts.items():
            hits = {"rejected": counts.faulty} | counts.hits
            for code, limit in limits.items():
                reached = [level for level in limit.stop if level.is_reached(hits[code], counts.rows)]
                if reached and runs[name][day]["bronze_sha256"] not in passed:
                    level = min(reached, key=lambda level: (level.share, level.rows))
                    tripped = {"dataset": name, "partition_date": day, "reason": code, "hits": hits[code]}
                    of_level = {"action": "stop", "level_share": level.share, "level_rows": level.rows}
                    lines.append(ledger.in_words(tripped | of_level | {"bronze_rows": counts.rows}))
    if lines:
        yield "Would stop before gold; the figures below are those once it is let pass with OVERRIDE=1"
    yield from (f"  {line}" for line in lines)
