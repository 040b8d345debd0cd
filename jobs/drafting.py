"""Drafts the declaration of a source from the profile of its files: what each dataset is made of, and how sure that is.

column_matching.py guesses single columns, draft_text.py writes the declaration.
"""

from collections.abc import Mapping
from itertools import combinations

from jobs import column_matching, terms
from jobs.catalog import CATALOG
from jobs.column_matching import LEAST, SURE, Draft, Guess
from jobs.dataset import Column, Dataset
from jobs.profiling import Profile, Reading, TableProfile


def draft(reading: Reading) -> dict[str, Draft]:
    """Returns what each dataset seems to be made of; one that no file seems to hold is left out."""
    profile, drafts = reading.profile, dict[str, Draft]()
    for name, dataset in CATALOG.items():
        taken = {each.table.pattern for each in drafts.values()}
        found = [each for table in profile.tables if (each := of_table(dataset, table, profile, drafts, taken))]
        ranked = sorted(found, key=lambda each: each.score, reverse=True)
        if ranked and all(parent in drafts for parent in dataset.parents.values()):
            best = complete(ranked[0], dataset, profile, drafts, taken)
            drafts[name] = fill(narrow(best, dataset, drafts), dataset, reading)
    return drafts


def of_table(
    dataset: Dataset, table: TableProfile, profile: Profile, drafts: Mapping[str, Draft], taken: set[str]
) -> Draft | None:
    """Returns the draft of a dataset made from this table; None if the columns match too poorly."""
    guesses = column_matching.guess(dataset, table, dataset.columns, profile, drafts)
    found = {each.column: each.confidence for each in guesses}
    weights = {c.name: (2.0 if c.name == dataset.amount else 1.0) if c.required else 0.5 for c in dataset.columns}
    score = sum(weights[name] * confidence for name, confidence in found.items())
    if any(column.references and column.name not in found for column in dataset.columns):
        return None
    if score < 0.4 * sum(weights.values()):
        return None
    own = terms.of_file(table.name, dataset)
    others = max(terms.of_file(table.name, each) for each in CATALOG.values() if each is not dataset)
    score += own - 0.5 * (not own) - (0.3 if table.pattern in taken else 0.75 * others * (others > own))
    if dataset.amount and dataset.amount not in found:
        score -= 1.5
    tables = {each.pattern: each for each in profile.tables}
    above = (tables[link.to_table] for link in profile.links if link.table == table.pattern)
    if any(terms.of_file(each.name, dataset) > own for each in above if each.pattern not in taken):
        score -= 1.5  # the lines of bills are no bills
    return Draft(dataset.name, table, guesses, score)


def complete(best: Draft, dataset: Dataset, profile: Profile, drafts: Mapping[str, Draft], taken: set[str]) -> Draft:
    """Returns the draft with what another table has of the same rows, where both share a key."""
    has = {each.column for each in best.guesses if each.confidence >= SURE}
    lacking = [column for column in dataset.columns if column.name not in has]
    if not any(column.required for column in lacking):
        return best
    own = {column.name for column in best.table.keys}
    offers = []
    for link in profile.links:
        other = next(table for table in profile.tables if table.pattern == link.to_table)
        if link.table != best.table.pattern or link.column not in own or link.to_table in taken:
            continue
        more = column_matching.guess(
            dataset, other, [column for column in lacking if not column.references], profile, drafts
        )
        more = tuple(each for each in more if each.confidence >= SURE and each.column != dataset.key)
        if more:
            offers.append((sum(each.confidence for each in more), link, other, more))
    if not offers:
        return best
    _, link, other, more = max(offers, key=lambda each: each[0])
    found = {each.column: each for each in (*best.guesses, *more)}
    guesses = tuple(found[column] for column in dataset.names if column in found)
    return best._replace(guesses=guesses, join=link, other=other)


def narrow(best: Draft, dataset: Dataset, drafts: Mapping[str, Draft]) -> Draft:
    """Returns the draft with a condition where stays are made of all visits: of those with an inpatient code alone."""
    visits = drafts.get("visits")
    if dataset.name != "admissions" or visits is None or visits.table.pattern != best.table.pattern:
        return best
    types = next((each for each in visits.guesses if each.column == "visit_type" and each.names), None)
    codes = [code for code, value in (types.values if types else ()) if value == "Inpatient"]
    return best._replace(where=(types.names[0], tuple(codes))) if types and codes else best


def fill(best: Draft, dataset: Dataset, reading: Reading) -> Draft:
    """Returns the draft with something for each column that must not be blank, marked as a guess."""
    found = {each.column: each for each in best.guesses}
    for column in dataset.columns:
        if column.required and column.name not in found:
            found[column.name] = stand_in(column, dataset, best, reading)
    return best._replace(guesses=tuple(found[name] for name in dataset.names if name in found))


def stand_in(column: Column, dataset: Dataset, best: Draft, reading: Reading) -> Guess:
    """Returns a guess for a column that matches no column of the source."""
    table = best.table
    why = "no column seems to hold it"
    if column.name == dataset.key:
        names = unique_together(best, reading)
        return Guess(column.name, names, why="no column alone is a key; these together are" if names[1:] else why)
    if column.one_of:
        value = terms.USUAL.get(column.name, column.one_of[0])
        return Guess(column.name, value=value, why=f"{why}; is it the same in all rows?")
    fitting = [
        (column_matching.holds(column, each) * each.columns[0].there, each)
        for each in column_matching.candidates(table)
    ]
    share, candidate = max(fitting, key=lambda each: each[0])
    if column.type == "text" or share < 0.5 * table.rows:
        return Guess(column.name, value="0" if column.type == "decimal" else "unknown", why=why)
    return column_matching.made_of(column, candidate, LEAST, table)._replace(why=f"{why}; is it this one?")


def unique_together(best: Draft, reading: Reading) -> tuple[str, ...]:
    """Returns the fewest columns among those in use that tell rows apart; the first alone where none do."""
    references = {*CATALOG[best.dataset].parents}
    own = [each for each in best.guesses if each.table == best.table.pattern]
    names = list(dict.fromkeys(name for each in own for name in each.names))
    parents = {name for each in own if each.column in references for name in each.names}
    for size in (2, 3, 4):
        for some in combinations(names, size):
            if (not parents or parents & {*some}) and reading.is_unique(best.table, some):
                return some
    return tuple(names) or (best.table.columns[0].name,)
