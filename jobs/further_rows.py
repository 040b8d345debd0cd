"""Writes a date's rows of the datasets without a writer of their own; further.py draws their values."""

from collections.abc import Iterator

import numpy as np

from jobs.catalog import CATALOG
from jobs.dataset import Dataset
from jobs.defects import is_rejected, strike
from jobs.drawing import START, Hospital, chunks, keys
from jobs.further import Base, draw_sound
from jobs.hospital import patients
from jobs.landing_writer import LandingFile

EVENTS = 3_000  # rows on START, at scale 1, of a dataset without foreign keys, or with one to patients alone
BRANCHES = 60  # of a hundred parents, those that have a row in a dataset without a writer


def write_further(file: LandingFile, files: dict[str, LandingFile]) -> None:
    """Writes the rows of a dataset without a writer; they refer to patients, or to sound rows of its parents today."""
    hospital, dataset = file.hospital, file.dataset
    used = np.array([], np.int64)  # parents that have a row already, if the key is a foreign key
    for base in list_bases(hospital, dataset, files):
        numbers = {name: list_parents(file, name, base, files) for name in dataset.parents}
        if dataset.key in numbers:
            _, firsts = np.unique(numbers[dataset.key], return_index=True)
            firsts = np.sort(firsts[~np.isin(numbers[dataset.key][firsts], used)])
            base, numbers = base.take(firsts), {name: number[firsts] for name, number in numbers.items()}
            used = np.concatenate([used, numbers[dataset.key]])
        references = {name: keys(CATALOG[dataset.parents[name]], number) for name, number in numbers.items()}
        columns, sound = draw_sound(hospital, dataset, base, references)
        base, neither = base.take(sound), np.zeros(sound.sum(), bool)
        places = file.rows + np.arange(len(neither)) if hospital.today == START else np.full(len(neither), -1)
        defect = strike(hospital, dataset.name, base.number * (hospital.today + 1), places)
        file.add(
            {name: column.filter(sound) for name, column in columns.items()}, base.number, neither, neither, defect
        )
        number = numbers[dataset.key][sound] if dataset.key in numbers else base.number
        file.offer(base._replace(number=number), defect < 0)


def find_parent(dataset: Dataset) -> str | None:
    """Returns the dataset on whose rows those of a dataset without a writer are based.

    It is visits, or else the first parent other than patients, or else None.
    """
    parents = [parent for parent in dataset.parents.values() if parent != "patients"]
    return "visits" if "visits" in parents else parents[0] if parents else None


def list_parents(file: LandingFile, name: str, base: Base, files: dict[str, LandingFile]) -> np.ndarray:
    """Returns the number of the parent to which each row refers in a column."""
    parent = file.dataset.parents[name]
    if parent == "patients":
        return base.patient
    if parent == find_parent(file.dataset):
        return base.number
    offered = np.concatenate([each.number for each in files[parent].sound])
    return offered[file.hospital.below(f"{file.dataset.name} {name}", base.number, len(offered))]


def list_bases(hospital: Hospital, dataset: Dataset, files: dict[str, LandingFile]) -> Iterator[Base]:
    """Yields what today's rows of a dataset without a writer are based on, a chunk at a time."""
    others = {*dataset.parents.values()} - {"patients"}
    if not all(sum(len(base.number) for base in files[parent].sound) for parent in others):
        return
    if parent := find_parent(dataset):
        whole = Base(*map(np.concatenate, zip(*files[parent].sound, strict=True)))
        whole = whole.take(hospital.below(f"{dataset.name} of {parent}", whole.number, 100) < BRANCHES)
        for places in chunks(0, len(whole.number)):
            yield whole.take(places)
        return
    events = max(1, round(EVENTS * hospital.scale))
    first = hospital.first_numbers(events)
    for number in chunks(1 if hospital.today == START else int(first[hospital.today]), int(first[hospital.today + 1])):
        day = np.searchsorted(first, number, side="right") - 1
        patient = 1 + hospital.below(f"{dataset.name} patient", number, hospital.first_patient[day] - 1)
        base = Base(number, patient, (day - 7) * 1440 + 480, day * 1440 + 1200)  # it took up to a week
        yield base.take(~is_rejected("patients", patients(hospital, patient).defect))
