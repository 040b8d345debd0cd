"""Declares the parameters of the Luigi tasks: dates and datasets, refused with a sentence where they are wrong."""

from datetime import date
from typing import Any

import luigi

from jobs import program
from jobs.program import Refused


class AnyDayParameter(luigi.DateParameter):
    """Parses a date as YYYY-MM-DD; exits with a sentence for any other text."""

    def parse(self, text: str) -> date:
        return program.given_day(text)


class DayParameter(AnyDayParameter):
    """Parses a date that has begun; exits with a sentence for a future date, unless FUTURE=1 is set."""

    def parse(self, text: str) -> date:
        day = super().parse(text)
        try:
            program.must_have_begun(day)
        except Refused as error:
            program.leave(2, str(error))
        return day


class DaysParameter(DayParameter):
    """Parses a date, or the dates of several tasks that Luigi runs as one batch, joined by commas."""

    def __init__(self, **more: Any) -> None:
        super().__init__(batch_method=lambda days: tuple(sorted(days)), **more)

    def parse(self, text: str) -> Any:
        days = tuple(map(super().parse, text.split(",")))
        return days if days[1:] else days[0]

    def serialize(self, value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def normalize(self, value: Any) -> Any:
        return value if isinstance(value, tuple) else super().normalize(value)

    def next_in_enumeration(self, value: Any) -> Any:
        return None if isinstance(value, tuple) else super().next_in_enumeration(value)


class DatasetParameter(luigi.ChoiceParameter):
    """Parses the name of a dataset; exits with a sentence for any other text."""

    def parse(self, text: str) -> str:
        return program.given_dataset(text).name
