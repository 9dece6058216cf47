"""Files that harm who reads them, refused before: archives that unpack to far more than they are, endless pipes."""

import os
from pathlib import Path
from zipfile import ZipFile

from reslab.errors import UserError

MAX_BYTES = 10**9  # below that, nothing is a bomb
MAX_RATIO = 100  # of what is inside to what lies on the disk; images are compressed by less


def check_kind(path: Path | str) -> None:
    """Raises: UserError where a file is something else, such as a pipe, which nobody may ever write to."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not a file: move it away")


def check_sizes(archive: ZipFile) -> None:
    """Raises: ValueError where a member would be huge and is nearly nothing on the disk."""
    for member in archive.infolist():
        if member.file_size > max(MAX_BYTES, MAX_RATIO * member.compress_size):
            raise ValueError(f"{member.filename} unpacks {member.compress_size:,} to {member.file_size:,} bytes")
