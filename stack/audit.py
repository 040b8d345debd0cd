"""Known vulnerabilities of the packages in requirements.lock, by pip-audit, which asks PyPI: make audit

Exits 1 where one is known, and 2 where it cannot be known: no advisory is no all-clear unless somebody was asked.
"""

import json
import subprocess
import sys
from pathlib import Path

from jobs import program, settings

PIP_AUDIT = "pip-audit@2.10.1"


def main() -> int:
    asked = [str(Path(sys.executable).with_name("uv")), "tool", "run", PIP_AUDIT, "--requirement", "requirements.lock"]
    asked += ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(asked, cwd=settings.ROOT, text=True, capture_output=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        program.leave(2, f"Whether a package is vulnerable cannot be known, for pip-audit got no answer: {said}")
    return report(packages)


def report(packages: list[dict]) -> int:
    """Prints what pip-audit found of each package, and how many it could learn nothing of; the exit code."""
    unknown = [each["name"] for each in packages if "vulns" not in each]
    vulnerable = [each for each in packages if each.get("vulns")]
    for each in vulnerable:
        for one in each["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            print(f"{each['name']} {each['version']}: {one['id']}, mended in {fixed}")
    print(f"{len(packages) - len(unknown)} packages were looked up: {len(vulnerable)} with a known vulnerability.")
    if unknown:
        few = ", ".join(unknown[:3])
        print(f"Nothing can be known of {len(unknown)} others ({few}, ...): PyPI could not be asked, or lacks them.")
    return 1 if vulnerable else 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
