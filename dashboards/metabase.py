"""Provisions the declared dashboards in Metabase, and verifies that they work there, by the command line."""

import sys

from dashboards import cards, metabase_client, metabase_provisioning, metabase_verification
from jobs import program
from jobs.program import Refused


def main(words: list[str]) -> None:
    """Runs `provision` or `verify`; exits 1 with a sentence if it cannot, or if verification finds a fault."""
    if words not in (["provision"], ["verify"]):
        program.leave(2, "usage: python -m dashboards.metabase provision|verify")
    try:
        boards = cards.load()
        metabase = metabase_client.log_in(may_set_up=words == ["provision"])
        if words == ["provision"]:
            metabase_provisioning.provision(metabase, boards)
        else:
            failures = metabase_verification.verify(metabase, boards)
    except (Refused, cards.Misdeclared) as error:
        program.leave(1, str(error))
    except Exception as error:
        program.leave(
            1, f"Metabase gave an answer that is not known here ({type(error).__name__}); is it v0.58 to v0.66?"
        )
    count = sum(len(board.cards) for board in boards)
    if words == ["provision"]:
        done = metabase.done
        print(", ".join(f"{done[how]} {how}" for how in ("created", "changed", "removed", "unchanged")))
    elif failures:
        program.leave(
            1, "\n".join([*failures, f"faults: {len(failures)}, in {count} cards of {len(boards)} dashboards"])
        )
    else:
        print(f"all {count} cards of {len(boards)} dashboards complete, plain and under each of their filters")


if __name__ == "__main__":
    main(sys.argv[1:])
