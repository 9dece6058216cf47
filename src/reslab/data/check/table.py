"""The findings of a check as a CSV file that a spreadsheet opens."""

import csv
import io
from pathlib import Path

from reslab.data.check.findings import FindingRow, Report
from reslab.runs import write_bytes
from reslab.words import printable


def write_table(report: Report, path: Path) -> None:
    """Write a row for each path of each finding. Raises: Failure where the disk does not take it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(FindingRow._fields)
    writer.writerows([printable(cell) for cell in row] for row in report.rows())
    write_bytes(path, text.getvalue().encode())
