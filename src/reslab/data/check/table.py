"""The findings of a check as a CSV file that a spreadsheet opens."""

from pathlib import Path

from reslab.data.check.findings import FindingRow, Report
from reslab.runs.files import to_csv, write_bytes


def write_table(report: Report, path: Path) -> None:
    """Write a row for each path of each finding. Raises: Failure if the file cannot be written."""
    write_bytes(path, to_csv(FindingRow._fields, report.rows()))
