"""Exports the Luigi tasks: `luigi --module pipelines Day --date 2026-01-31`."""

from pipelines.tasks import (
    Bronze,
    BronzeIngestion,
    Compact,
    Dashboards,
    Day,
    Forget,
    Gold,
    GoldPipeline,
    Maintenance,
    Marts,
    Pages,
    QualityGate,
    Revalidation,
    Silver,
    SilverPipeline,
)

__all__ = [
    "Bronze",
    "BronzeIngestion",
    "Compact",
    "Dashboards",
    "Day",
    "Forget",
    "Gold",
    "GoldPipeline",
    "Maintenance",
    "Marts",
    "Pages",
    "QualityGate",
    "Revalidation",
    "Silver",
    "SilverPipeline",
]
