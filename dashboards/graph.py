"""Draws a directed acyclic graph as SVG: nodes in columns, and edges from left to right."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 220, 46  # pixels of a node
BETWEEN, ABOVE = 90, 14  # pixels between columns, and between the nodes of a column
MARGIN = 24
LONGEST = 29  # characters that fit into a line of a node


class Node(NamedTuple):
    """Describes a box: full name (its tooltip), two lines of text, group (its colour), and column."""

    name: str
    text: str
    about: str
    group: str
    column: int


def ranks(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Returns the rank of each node: 0 without predecessors, else one above the highest rank of a predecessor."""
    before: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        if source in before and target in before:
            before[target].append(source)
    found: dict[str, int] = {}

    def rank(node: str) -> int:
        if node not in found:
            found[node] = 1 + max(map(rank, before[node]), default=-1)
        return found[node]

    for node in before:
        rank(node)
    return found


def ordered(columns: Sequence[list[str]], edges: Sequence[tuple[str, str]]) -> Sequence[list[str]]:
    """Sorts the nodes of each column in place by the mean position of their neighbours, so that few edges cross."""
    beside: dict[str, list[str]] = {}
    for source, target in edges:
        beside.setdefault(source, []).append(target)
        beside.setdefault(target, []).append(source)
    for _ in range(8):
        for column in columns:
            place = {node: number / max(1, len(each) - 1) for each in columns for number, node in enumerate(each)}
            column.sort(key=lambda node: mean([place[other] for other in beside.get(node, [])], place[node]))
    return columns


def mean(numbers: Sequence[float], otherwise: float) -> float:
    """Returns the mean of numbers, or `otherwise` if there are none."""
    return sum(numbers) / len(numbers) if numbers else otherwise


def svg(nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]], title: str) -> str:
    """Returns the SVG of nodes, given by id, and of the edges between them."""
    used = sorted({node.column for node in nodes.values()})
    columns = ordered([[name for name in nodes if nodes[name].column == number] for number in used], edges)
    tallest = max(map(len, columns), default=0)
    at: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        top = MARGIN + (tallest - len(column)) * (HEIGHT + ABOVE) / 2
        for place, node in enumerate(column):
            at[node] = MARGIN + number * (WIDTH + BETWEEN), top + place * (HEIGHT + ABOVE)
    width = 2 * MARGIN + len(columns) * WIDTH + max(0, len(columns) - 1) * BETWEEN
    height = 2 * MARGIN + tallest * (HEIGHT + ABOVE) - ABOVE
    lines = [curve(at[source], at[target]) for source, target in edges]
    boxes = [box(*at[node], nodes[node]) for node in nodes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'role="img"><title>{escape(title)}</title>{"".join(lines)}{"".join(boxes)}</svg>'
    )


def curve(source: tuple[float, float], target: tuple[float, float]) -> str:
    """Returns the curve from the right side of one node to the left side of another; within a column, on their left."""
    (x1, y1), (x2, y2) = (source[0] + WIDTH, source[1] + HEIGHT / 2), (target[0], target[1] + HEIGHT / 2)
    bend = (x2 - x1) / 2
    if source[0] == target[0]:
        x1, bend = x2, -BETWEEN / 3
        return f'<path d="M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 + bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"/>'
    return f'<path d="M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"/>'


def box(x: float, y: float, node: Node) -> str:
    """Returns the box of a node with its two lines of text."""
    return (
        f'<g class="{escape(node.group)}"><title>{escape(node.name)}</title>'
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x + 12:.0f}" y="{y + 20:.0f}">{escape(short(node.text))}</text>'
        f'<text x="{x + 12:.0f}" y="{y + 37:.0f}" class="about">{escape(short(node.about))}</text></g>'
    )


def short(text: str) -> str:
    """Shortens a text to fit into a node; keeps the end, which tells most."""
    return text if len(text) <= LONGEST else f"…{text[-LONGEST + 1 :]}"
