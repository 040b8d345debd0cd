"""What the platform is made of: licences are listed, and an audit never passes for want of an answer."""

import re

import pytest

from jobs import settings
from stack import audit, licences

LOCKED = set(re.findall(r"^([\w.-]+)==", (settings.ROOT / "requirements.lock").read_text(), re.M))


def test_every_locked_package_has_a_licence_on_the_page():
    page = licences.PAGE.read_text()
    rows = re.findall(r"^\| (.+) \| \d+ \| (.+) \|$", page, re.M)
    assert {name for _, names in rows for name in names.split(", ")} >= LOCKED, "run `make licences`"
    for group, name, version in re.findall(
        r"([\w.]+):([\w.-]+):([\w.]+),?\\?$", (settings.ROOT / "spark-defaults.conf").read_text(), re.M
    ):
        assert f"{group}:{name}-{version}" in page, "run `make licences`"


def test_licences_have_one_name_however_they_are_spelt():
    spelt = {
        "The Apache Software License, Version 2.0": "Apache-2.0",
        "https://www.apache.org/licenses/LICENSE-2.0.txt": "Apache-2.0",
        "The New BSD License": "BSD-3-Clause",
        "http://www.eclipse.org/legal/epl-2.0": "EPL-2.0",
        "MIT License": "MIT",
        "something else": "something else",
    }
    assert {text: licences.spdx(text) for text in spelt} == spelt


SOUND = {"name": "sound", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "told"),
    [
        ([SOUND], 0, "1 packages were looked up: 0 with a known vulnerability."),
        ([SOUND, BAD], 1, "bad 2: CVE-1, mended in 3"),
        ([SOUND, UNKNOWN], 2, "Nothing can be known of 1 others (unknown, ...)"),
        ([BAD, UNKNOWN], 1, "Nothing can be known of 1 others"),
    ],
)
def test_an_audit_tells_what_it_knows_and_what_it_cannot(capsys, packages, code, told):
    assert audit.report(packages) == code
    assert told in capsys.readouterr().out
