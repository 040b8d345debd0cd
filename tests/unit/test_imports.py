"""Checks which modules import which."""

import ast
from collections.abc import Iterator

from jobs import settings

MODULES = {
    ".".join(file.relative_to(settings.ROOT).with_suffix("").parts): ast.parse(file.read_text())
    for package in ("dashboards", "jobs", "pipelines", "stack")
    for file in (settings.ROOT / package).rglob("*.py")
}


def imported(module: ast.Module) -> Iterator[str]:
    """Yields the names of the modules that a module imports, wherever in it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{each.name}" for each in node.names)


def test_no_module_imports_a_job():
    jobs = {name for name, module in MODULES.items() if "program.run(" in ast.unparse(module)}
    assert "jobs.bronze_to_silver" in jobs
    assert [(name, each) for name, module in MODULES.items() for each in imported(module) if each in jobs] == []


def test_no_module_of_the_jobs_calls_the_main_of_another():
    """Covers the commands for a person, which have no `program.run`."""
    jobs = {name: module for name, module in MODULES.items() if name.startswith("jobs.")}
    assert [
        name for name, module in jobs.items() for node in ast.walk(module) if getattr(node, "attr", "") == "main"
    ] == []
    assert [(name, each) for name, module in jobs.items() for each in imported(module) if each.endswith(".main")] == []
