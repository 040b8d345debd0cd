"""Runs datacontract-cli to lint contracts or to test them in a database: `python contract_check.py test <file> ...`.

It runs in the environment of datacontract-cli, which has none of this platform's packages: jobs/contracts.py starts it.
"""

import sys
from pathlib import Path
from typing import Any

from datacontract.data_contract import DataContract


def main(command: str, *files: str) -> int:
    """Prints a line for each contract and for each check that fails; returns the number of broken contracts."""
    broken = 0
    for file in files:
        # ops.freshness checks the age of rows: the tool would compare with the wall clock, and gold may be of any year.
        contract = DataContract(data_contract_file=file, check_categories={"schema", "quality"})
        run = contract.lint() if command == "lint" else contract.test()
        failed = [check for check in run.checks if word(check.result) in ("failed", "error")]
        broken += bool(failed) or word(run.result) in ("failed", "error")
        passed = sum(word(check.result) == "passed" for check in run.checks)
        print(f"{Path(file).name}: {word(run.result)}, {passed} of {len(run.checks)} checks passed")
        for check in failed:
            print(f"  {check.qualityId or check.field or check.type}: {check.reason or check.name}")
    return broken


def word(result: Any) -> str:
    """Returns the result of a check or a run as a word."""
    return str(getattr(result, "value", result))


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
