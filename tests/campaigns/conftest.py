"""Provides what all campaigns use."""

from collections.abc import Callable

import pytest


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints past pytest's capture."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    return line
