"""Writes a landing file row by row: sound rows in any form that CSV and the rules allow, and rows with a defect.

It also holds which rows must be rejected, and why.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.catalog import children
from jobs.dataset import WHITE_SPACE, Dataset
from jobs.defects import defects, duplicates
from jobs.drawing import START, Hospital, text
from jobs.further import Base, Columns
from jobs.verdicts import verdicts

WRITTEN = ("patients", "visits", "admissions", "treatments", "billing")  # those with a writer of their own
NOTES = pa.array(("", "", "seen", "to follow up", "moved, new address"))
FREE_TEXT = ("city", "treatment_name", "note")

# The forms that rows may have and still be sound.
TIMESTAMPS = (  # a form, and its minutes ahead of UTC
    ("%Y-%m-%d %H:%M:%S", 0), ("%Y-%m-%dT%H:%M", 0), ("%Y-%m-%d %H:%M", 0), ("%Y-%m-%dT%H:%M:%S.500", 0),
    ("%Y-%m-%dT%H:%M:%SZ", 0), ("%Y-%m-%d %H:%M+00:00", 0), ("%Y-%m-%dT%H:%M:%S.000001+02:00", 120),
    ("%Y-%m-%d %H:%M:%S-05:30", -330),
)  # fmt: skip
DECIMALS = ("+{}", "{}4", "00{}", "{}0")
PADS = ("{}", "{}", " {}", "{}\u00a0", "\t{}  ", "\u2003{}")
BREAKS = ("\n{}", "{}\n")


@dataclass
class LandingFile:
    """Writes a landing file; holds how it is written, how many rows it has and which of them must be rejected."""

    hospital: Hospital
    dataset: Dataset
    file: BinaryIO
    rows: int = 0
    rejects: list[tuple[str, str, str, str]] = field(default_factory=list)
    sound: list[Base] = field(default_factory=list)  # what today's rows of datasets without a writer may refer to

    def __post_init__(self) -> None:
        """Decides how the file is written, and writes its header.

        Later dates have the oddities of other systems; START has none, so that its files can be split by line.
        """
        self.end_of_line = "\r\n" if self.happens("crlf", 20) else "\n"
        self.varied = self.hospital.today > START
        self.is_parent = any(child.name not in WRITTEN for child in children(self.dataset))
        own = [c.name for c in self.dataset.columns if c.type == "text"]
        self.has_commas = {*(FREE_TEXT if self.dataset.name in WRITTEN else own), "note"}
        self.has_breaks = self.happens("breaks", 40)
        self.has_blank_lines = self.happens("blank lines", 30)
        names = [*self.dataset.names, *(["note"] if self.happens("note", 20) else [])]
        turn = len(names) // 2 if self.happens("turn", 25) else 0
        self.names = names[turn:] + names[:turn]
        mark = "\ufeff" if self.happens("mark", 25) else ""
        self.file.write((mark + self.line(self.names)).encode())

    def happens(self, what: str, percent: int) -> bool:
        """Tells whether something happens to today's file, with a probability in per cent; on START nothing does."""
        drawn = self.hospital.below(f"{self.dataset.name} {what}", np.array([self.hospital.today]), 100)
        return self.hospital.today > START and bool(drawn[0] < percent)

    def line(self, fields: Sequence[str], quoted: bool = False) -> str:
        """Returns a record in CSV."""
        return ",".join(quote(f) if quoted or set(f) & set(',"\n\r') else f for f in fields) + self.end_of_line

    def spoilt(self, fields: list[str], bits: int) -> str:
        """Returns a record with a field too few, a comma too many or a NUL."""
        broken = (fields[:-1], [*fields[:2], " ", *fields[2:]], [*fields[:-1], fields[-1] + "\0"])
        return self.line(broken[bits % 3])

    def add(
        self, columns: Columns, number: np.ndarray, orphan: np.ndarray, waits: np.ndarray, defect: np.ndarray
    ) -> None:
        """Adds rows with their defects; the parent of an orphan that only `waits` is in tomorrow's file."""
        hospital, dataset = self.hospital, self.dataset
        bits = hospital.draw(f"{dataset.name} bits {hospital.today}", number)
        if "note" in self.names:
            columns["note"] = NOTES.take(bits % len(NOTES))
        # Rows that wait must be accepted one day; two copies of an orphan are two orphans and no duplicate.
        defect = np.where(waits | (orphan & (defect >= 0) & duplicates(dataset.name)[defect]), -1, defect)
        orphan = orphan | waits
        varied = (bits >> np.uint64(8)) % np.uint64(12) == 0 if self.varied else np.zeros(len(number), bool)
        parts: list[pa.Array | str] = []
        for name in self.names:
            column = columns[name]
            if name in self.has_commas:  # and perhaps quotes, but no line breaks
                quoted = text('"', pc.replace_substring(column, '"', '""'), '"')
                column = pc.if_else(pc.match_substring_regex(column, '[,"]'), quoted, column)
            parts += [column, ","]
        lines = text(*parts[:-1], self.end_of_line)

        # The few rows that have a defect, lack a parent or vary in form, one by one.
        special = np.flatnonzero((defect >= 0) | orphan | varied)
        firsts, seconds = [], []
        for i, row in zip(special.tolist(), pa.table(columns).take(special).to_pylist(), strict=True):
            is_varied, is_orphan, kind = bool(varied[i]), bool(orphan[i]), int(defect[i])
            line, copy, key, reasons = self.treat(row, kind, is_orphan, is_varied, int(bits[i]) >> 12)
            firsts.append(line)
            seconds += [copy] if copy else []
            if reasons:
                place = "" if copy else str(self.rows + i + 1)
                self.rejects.append((key, place, reasons, str(hospital.date(hospital.today + 1)) if waits[i] else ""))
        mask = np.zeros(len(number), bool)
        mask[special] = True
        lines = pc.replace_with_mask(lines, mask, pa.array(firsts, pa.string()))
        self.file.write(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "")[0].as_buffer())
        self.file.write("".join(seconds).encode())
        self.rows += len(number) + len(seconds)

    def treat(self, row: dict[str, str], kind: int, orphan: bool, varied: bool, bits: int) -> tuple[str, str, str, str]:
        """Returns a row as it is sent: its line, the line of its second copy if any, its key and the codes it earns."""
        dataset, fields = self.dataset, [row[name] for name in self.names]
        if kind < 0:
            line = self.vary(row, bits) if varied else self.line(fields)
            return line, "", row[dataset.key], ";".join(f"orphan_{name}" for name in dataset.parents if orphan)
        defect, earn = defects(dataset.name)[kind], verdicts(dataset.name)
        wrong = defect.spoil(row, bits)
        changed = self.line([wrong[name] for name in self.names])
        if defect.reasons == "malformed_row":
            return self.spoilt(fields, bits), "", "", "malformed_row"
        if duplicates(dataset.name)[kind]:  # the second copy must be sound too
            return (
                self.line(fields),
                self.line(fields) if earn.codes(wrong) else changed,
                row[dataset.key],
                defect.reasons,
            )
        # Codes that only silver can give: orphans, and rules that SQLite cannot evaluate.
        orphans = {name: f"orphan_{name}" for name in dataset.parents}
        beyond = {*orphans.values(), *(rule.reason for rule in earn.unknown)} & {*defect.reasons.split(";")}
        lost = {code for name, code in orphans.items() if orphan and name not in defect.texts}
        codes = {*earn.codes(wrong)} | beyond | lost
        return changed, "", wrong[dataset.key].strip(WHITE_SPACE), ";".join(c for c in dataset.reasons if c in codes)

    def offer(self, base: Base, mask: np.ndarray) -> None:
        """Notes which of the rows are accepted today, for rows that refer to them."""
        if self.is_parent:
            end = np.minimum(base.end, self.hospital.today * 1440 + 1439)
            self.sound.append(base._replace(end=end).take(mask))

    def vary(self, row: dict[str, str], bits: int) -> str:
        """Returns the line of a row as other systems may write it; a plain one if the variant would earn a code."""
        plain, row = row, dict(row)
        pads = PADS + BREAKS if self.has_breaks else PADS
        for column in self.dataset.columns:
            value = row[column.name]
            bits, way = divmod(bits, 8)
            if column.type == "timestamp" and value:
                form, ahead = TIMESTAMPS[way % len(TIMESTAMPS)]
                value = (datetime.datetime.fromisoformat(value) + datetime.timedelta(minutes=ahead)).strftime(form)
            elif column.type == "decimal" and value:
                value = DECIMALS[way % len(DECIMALS)].format(value)
            elif column.one_of:
                value = (str.lower, str.upper, str.swapcase)[way % 3](value)
            elif column.name in FREE_TEXT and value and way == 0:
                value += '\n"annex", east' if self.has_breaks else ' "annex", east'
            bits, pad = divmod(bits, 8)
            row[column.name] = pads[pad % len(pads)].format(value)
        row = plain if verdicts(self.dataset.name).codes(row) else row
        line = self.line([row[name] for name in self.names], quoted=bits % 2 == 0)
        return line + self.end_of_line if self.has_blank_lines and bits % 8 < 3 else line

    def finish(self) -> None:
        """Ends the file; on some later dates with a record that is cut off behind an open quote."""
        if self.happens("cut off", 8):
            self.file.write(self.line(["X00000000", *[""] * (len(self.names) - 2)]).rstrip().encode() + b',"transfer')
            self.rows += 1
            self.rejects.append(("", str(self.rows), "malformed_row", ""))


def quote(value: str) -> str:
    """Returns a field in quotes."""
    return '"' + value.replace('"', '""') + '"'
