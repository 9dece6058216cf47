"""Archives that unpack to far more than they are: refused before anything is unpacked."""

from zipfile import ZipFile

MAX_BYTES = 10**9  # below that, nothing is a bomb
MAX_RATIO = 100  # of what is inside to what lies on the disk; images are compressed by less


def check_sizes(archive: ZipFile) -> None:
    """Raises: ValueError where a member would be huge and is nearly nothing on the disk."""
    for member in archive.infolist():
        if member.file_size > max(MAX_BYTES, MAX_RATIO * member.compress_size):
            raise ValueError(f"{member.filename} unpacks {member.compress_size:,} to {member.file_size:,} bytes")
