"""Reports the failure of a date: to the ledger, to the operator's commands and on the pages."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date

import psycopg
from luigi.rpc import RPCError

from jobs import program, warehouse
from pipelines import alert, dates, runs, scheduler


@contextmanager
def told(text: str) -> Iterator[None]:
    """Calls the operator's commands when the run of a date fails, or succeeds after a failure.

    An invalid date, or one that has not begun, is a usage error and no failure of the date.
    """
    try:
        yield
    except program.Refused:
        raise
    except SystemExit as end:
        if end.code:
            day, said = program.parse_day(text), end.code if isinstance(end.code, str) else ""
            tell_failure(day, *failure(day, said or f"{day} ended with code {end.code}; its output says why."))
        raise
    except Exception as error:
        tell_failure(program.parse_day(text), "Day", program.sentence(error))
        raise
    alert.done(program.parse_day(text))


def tell_failure(day: date, task: str, sentence: str) -> None:
    """Calls the operator's command for a failed date; records the failure in the ledger unless a task has done so."""
    if task == "Day" or not is_told(day):
        runs.add(day, task, sentence)
        runs.record_failure("run", "all", day, sentence)
    alert.failed(day, task, sentence, "stopped" if task == "QualityGate" else "failed")
    with suppress(Exception, SystemExit):  # reporting the failure comes first; a store may be down
        dates.rebuild_pages()


def is_told(day: date) -> bool:
    """Tells whether the ledger already explains why a date is not done; False if PostgreSQL is down."""
    with suppress(psycopg.Error), warehouse.connect() as connection:
        return warehouse.value(
            connection,
            "select exists(select from ops.dates where partition_date = %(day)s and state in ('failed', 'stopped')) "
            "or exists(select from ops.never_ran where partition_date = %(day)s)",
            {"day": day},
        )
    return False


def failure(day: date, otherwise: str) -> tuple[str, str]:
    """Returns the name of a failed task of a date and the sentences of all failed tasks, as luigid has them."""
    names, sentences = [], []
    with suppress(RPCError):
        for status in ("FAILED", "DISABLED"):
            for task_id, task in scheduler.tasks(status, day).items():
                if task_id not in scheduler.disabled():
                    names.append(scheduler.name_of(task))
                    sentences.append(json.loads(scheduler.luigid().fetch_error(task_id)["error"] or '""'))
    return (min(names, default="Day"), "\n".join(dict.fromkeys(filter(None, sentences))) or otherwise)
