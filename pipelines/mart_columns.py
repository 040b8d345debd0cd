"""Caches what each mart's columns are made of, since parsing the marts' SQL takes about as long as building them."""

import json
from typing import Any

from jobs import marts, schema, settings


def all_marts() -> dict[str, dict[str, Any]]:
    """Returns, by mart: `doc`, `columns` (name, type, comment), `reads` (tables), `made_of` and `influences`.

    Reads the cache file of this DDL and marts' SQL; derives and writes it if there is none yet.
    """
    file = settings.path("STACK_DIR") / "lineage" / f"marts-{schema.digest()[:16]}-{marts.rule_set()}.json"
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        found = derived()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for former in file.parent.glob("marts-*.json"):
        former.unlink(missing_ok=True)
    file.write_text(json.dumps(found))
    return found


def derived() -> dict[str, dict[str, Any]]:
    """Derives the content of `all_marts` from the SQL; imports the slow parser only here."""
    from jobs import columns, dictionary

    described = {name: (doc, declared) for name, doc, declared in dictionary.mart_tables()}
    found = {}
    for mart in marts.selects():
        doc, declared = described.get(mart, ("", []))
        comments = {name: text for name, _, text in declared}
        known = columns.tables()[mart].columns
        found[mart] = {
            "doc": doc,
            "columns": [(column.name, column.type, comments.get(column.name, "")) for column in known],
            "reads": columns.read_by(mart),
            "made_of": {c: [(*source, how) for source, how in of.items()] for c, of in columns.made_of(mart).items()},
            "influences": [(*source, clause) for source, clause in columns.influences(mart).items()],
        }
    return found
