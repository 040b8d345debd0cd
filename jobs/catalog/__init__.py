"""The five datasets, parents before children."""

from jobs.catalog.admissions import admissions
from jobs.catalog.billing import billing
from jobs.catalog.patients import patients
from jobs.catalog.treatments import treatments
from jobs.catalog.visits import visits
from jobs.dataset import Dataset

CATALOG = {dataset.name: dataset for dataset in (patients, visits, admissions, treatments, billing)}


def children(dataset: Dataset) -> list[Dataset]:
    """The datasets that refer to this one, in the catalog's order."""
    return [child for child in CATALOG.values() if dataset.name in child.parents.values()]
