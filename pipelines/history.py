"""Trims Luigi's task history, which luigid writes but never shortens."""

from datetime import datetime
from pathlib import Path
from typing import Any

import luigi
from luigi.db_task_history import TaskEvent, TaskParameter, TaskRecord
from sqlalchemy import create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from jobs.program import Refused


def forget(before: datetime) -> int:
    """Removes events and parameters of tasks without an event since a time; returns the number of tasks.

    Keeps the latest record of each task: luigid looks up every task seen since it started, whatever its age. Does
    nothing if the history is on another machine. Raises Refused if the history cannot be changed.
    """
    url = make_url(luigi.configuration.get_config().get("task_history", "db_connection"))
    if url.get_backend_name() == "sqlite" and not Path(url.database).is_file():
        return 0
    try:
        return forget_in(url, before)
    except SQLAlchemyError as error:
        raise Refused(
            f"Luigi's history cannot be shortened ({type(error).__name__}); nothing was changed. Look at "
            "[task_history] in conf/luigi.cfg, and run this again."
        ) from None


def forget_in(url: Any, before: datetime) -> int:
    with Session(create_engine(url)) as session, session.begin():
        silent = select(TaskEvent.task_id).group_by(TaskEvent.task_id).having(func.max(TaskEvent.ts) < before)
        old = list(session.execute(silent).scalars())
        last = select(func.max(TaskRecord.id)).group_by(TaskRecord.task_id)
        for some in (old[start : start + 500] for start in range(0, len(old), 500)):
            superseded = TaskRecord.id.in_(some) & TaskRecord.id.not_in(last)
            for table, rows in (
                (TaskEvent, TaskEvent.task_id.in_(some)),
                (TaskParameter, TaskParameter.task_id.in_(some)),
                (TaskRecord, superseded),
            ):
                session.query(table).filter(rows).delete(synchronize_session=False)
    return len(old)
