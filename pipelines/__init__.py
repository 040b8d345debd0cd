"""The Luigi tasks: `luigi --module pipelines Day --date 2026-01-31`."""

from pipelines.tasks import (
    Bronze,
    BronzeIngestion,
    Cleared,
    Dashboards,
    Day,
    Gold,
    GoldPipeline,
    Marts,
    Pages,
    Rejudged,
    Silver,
    SilverPipeline,
)

__all__ = [
    "Bronze",
    "BronzeIngestion",
    "Cleared",
    "Dashboards",
    "Day",
    "Gold",
    "GoldPipeline",
    "Marts",
    "Pages",
    "Rejudged",
    "Silver",
    "SilverPipeline",
]
