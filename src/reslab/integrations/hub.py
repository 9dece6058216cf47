"""Push runs to a model hub and pull them from it (huggingface_hub): weights as safetensors, everything else as JSON.

Downloaded files are checked like any file of a run folder, and files of other kinds are not downloaded.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reslab.errors import Failure, UserError, extra
from reslab.report.card import SHARED, write_card
from reslab.runs import DEMO, DEMO_FOLDER, Run, make_folder, read_weights, write_bytes
from reslab.runs.files import LARGEST, read_bytes


def push(run: Run, *, to: str, private: bool = False, endpoint: str | None = None) -> str:
    """Upload a finished run with a model card to a model hub.

    `environment.json`, which is uploaded too, contains the processor and the command line of the training.

    Parameters
    ----------
    run : Run
        The finished run.
    to : str
        The repository, OWNER/NAME; it is created if it does not exist.
    private : bool, default False
        Whether a new repository is private.
    endpoint : str, optional
        Address of the hub, instead of `$HF_ENDPOINT` or the official one.

    Returns
    -------
    str
        The repository's address.

    Raises
    ------
    UserError
        If the run is not finished or `to` is not such a name.
    Failure
        If the hub refuses.

    Examples
    --------
    >>> import reslab
    >>> address = reslab.push(reslab.Run.open("runs/digits"), to="somebody/digits")
    >>> address.endswith("/somebody/digits")
    True
    """
    with extra("hub"):
        from huggingface_hub import CommitOperationAdd, HfApi
    _check_name(to)
    weights = read_weights(run.path)[1]
    files = [name for name in SHARED if (run.path / name).exists()]
    contents = {name: read_bytes(run.path / name) for name in files}
    contents["README.md"] = write_card(run, weights=weights, files=files).encode()
    api = HfApi(endpoint=endpoint)
    with _asking(to):
        address = api.create_repo(to, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.items()]
        api.create_commit(to, operations, commit_message=f"Upload {run.recipe.name}")
    return str(address)


def pull(name: str, *, out: Path | str, endpoint: str | None = None) -> Run:
    """Download a run from a model hub.

    Parameters
    ----------
    name : str
        The repository, OWNER/NAME; or `demo`, the run that comes with reslab, which needs no hub.
    out : Path or str
        The run folder to create.
    endpoint : str, optional
        Address of the hub, instead of `$HF_ENDPOINT` or the official one.

    Returns
    -------
    Run
        The run, with every file checked.

    Raises
    ------
    UserError
        If there is no such run, one of its files is damaged, its files are larger than 4 GiB, or `out` is taken.
    Failure
        If the hub refuses.

    Examples
    --------
    >>> import reslab
    >>> address = reslab.push(reslab.Run.open("runs/digits"), to="somebody/digits")
    >>> reslab.pull("somebody/digits", out="runs/pulled").is_finished
    True
    """
    if name == DEMO:
        return _copy_demo(out)
    with extra("hub"):
        from huggingface_hub import HfApi
    _check_name(name)
    Run.check_free(out, can_resume=False)
    api = HfApi(endpoint=endpoint)
    with _asking(name):
        listed = api.model_info(name, files_metadata=True)
    size = sum(each.size or 0 for each in listed.siblings or () if each.rfilename in SHARED)
    if size > LARGEST:
        raise UserError(f"the run {name} has {size:,} bytes, but at most {LARGEST:,} are downloaded: choose another")
    with tempfile.TemporaryDirectory() as folder:
        with _asking(name):
            api.snapshot_download(name, revision=listed.sha, allow_patterns=list(SHARED), local_dir=folder)
        found = Run(folder)
        contents = {each: (found.path / each).read_bytes() for each in SHARED if (found.path / each).exists()}
        try:
            _check(found, contents)
        except UserError as error:
            raise UserError(f"{name} does not hold a valid run: {str(error).replace(f'{folder}/', '')}") from None
    run = Run.create(out, can_resume=False)
    try:
        for each, content in contents.items():
            write_bytes(run.path / each, content)
    except BaseException:  # half a run would be in the way of the next attempt, or be taken for a whole one
        for each in contents:
            (run.path / each).unlink(missing_ok=True)
        raise
    return run


def _copy_demo(out: Path | str) -> Run:
    run = Run.create(out, can_resume=False)
    make_folder(run.path / "pictures")
    for path in sorted(DEMO_FOLDER.rglob("*.*")):
        write_bytes(run.path / path.relative_to(DEMO_FOLDER), path.read_bytes())
    return run


def _check(run: Run, contents: dict[str, bytes]) -> None:
    """Read everything once. Raises: UserError if a file is missing or damaged."""
    for name in ("recipe.json", "model.safetensors"):
        if name not in contents:
            raise UserError(f"{name} is missing")
    read_weights(run.weights_path)
    if run.base_path.exists():
        if run.recipe.start is not None and run.recipe.extension is None:
            run.read_start(run.recipe.start)
        else:
            read_weights(run.base_path)
    readers = {"recipe.json": "recipe", "environment.json": "environment", "evaluation.json": "evaluation"}
    for name, reader in (readers | {"log.jsonl": "log", "base.json": "base_recipe", "prior.json": "prior"}).items():
        if name in contents:
            getattr(run, reader)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        raise UserError(f"{name!r} is not the name of a model on a hub: write OWNER/NAME")


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """Turn an error of the hub into one sentence."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise UserError(f"{name} is not a name for a model: {error}") from None
    except RepositoryNotFoundError:
        raise UserError(f"{name} is not on the hub, or not accessible: check the name, or run hf auth login") from None
    except LocalTokenNotFoundError:
        raise UserError("the hub does not know who you are: run hf auth login, or set HF_TOKEN") from None
    except Exception as error:  # its own errors and those of its HTTP library have no common base class
        raise Failure(f"the request to the hub for {name} failed: {error}") from None
