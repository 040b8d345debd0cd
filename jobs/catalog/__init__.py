"""Lists the datasets, one per file of this directory, parents before children."""

from datetime import date
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pkgutil import iter_modules

from jobs.dataset import Dataset


def discover() -> dict[str, Dataset]:
    """Returns the dataset that each module declares under its own name, by name, parents before children.

    Raises ValueError if a module declares no such dataset, a column references none, or references form a circle.
    """
    found: dict[str, Dataset] = {}
    for name in sorted(module.name for module in iter_modules(__path__)):
        dataset = getattr(import_module(f"{__name__}.{name}"), name, None)
        if not isinstance(dataset, Dataset) or dataset.name != name:
            raise ValueError(f"jobs/catalog/{name}.py declares no Dataset `{name}` of that name; correct the name.")
        found[name] = dataset
    for dataset in found.values():
        if unknown := sorted({*dataset.parents.values()} - {*found}):
            raise ValueError(f"{dataset.name} refers to {', '.join(unknown)}; the datasets are {', '.join(found)}.")
    try:
        order = TopologicalSorter({name: sorted(set(d.parents.values())) for name, d in found.items()}).static_order()
        return {name: found[name] for name in order}
    except CycleError as error:
        raise ValueError(f"Datasets refer to each other in a circle: {' → '.join(error.args[1])}.") from None


CATALOG = discover()


def expected(day: date) -> dict[str, Dataset]:
    """Returns the datasets of which a date needs a file, in the catalog's order."""
    return {name: dataset for name, dataset in CATALOG.items() if dataset.since <= day}


def children(dataset: Dataset) -> list[Dataset]:
    """Returns the datasets that reference this one, in the catalog's order."""
    return [child for child in CATALOG.values() if dataset.name in child.parents.values()]


def relatives(dataset: Dataset) -> set[str]:
    """Returns the names of a dataset, of those that it references, and of those that reference it."""
    return {dataset.name, *dataset.parents.values(), *(child.name for child in children(dataset))}
