"""Extend a finished run to a new run that knows its classes and new ones."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from reslab.data.load import check_outside
from reslab.data.recipe_data import check_remote, find_base
from reslab.errors import UserError
from reslab.extension.extender import Extender
from reslab.extension.learned import read_learned
from reslab.extension.memory import read_memory
from reslab.extension.methods import METHODS, default_method
from reslab.extension.more import knows_all, plan_more
from reslab.extension.planning import Wish, plan_extension, with_own_settings
from reslab.machine.device import pick_device
from reslab.network.network import Network
from reslab.runs import Run, read_weights
from reslab.training.begin import Computing, begin, go_on, read_recorded, read_splits
from reslab.training.distributed import Team
from reslab.training.findings import tell_findings
from reslab.training.safety import EVERY_EPOCH, Safety
from reslab.training.session import train


def extend(
    base: Path | str,
    *,
    data: str,
    out: Path | str,
    method: str | None = None,
    old_data: str | int = "all",
    merge: bool = False,
    prior: str = "base",
    keep_old: str | None = None,
    settings: Iterable[str] = (),
    minutes: float | None = None,
    skip_damaged: bool = False,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    compile: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
) -> Run:
    """Teach the network of a finished run new classes.

    Parameters
    ----------
    base : Path or str
        The folder of the finished run, which is not changed.
    data : str
        Data expression of the new classes, such as `folder:PATH`.
    out : Path or str
        The run folder to make, for a network that knows the old and the new classes.
    method : str, optional
        One of `reslab.extension.METHODS`. The default is `finetune-distill`, or `fusion` for a base that is a head on
        the features of a pretrained network, as made by `fit`, and with `old_data="none"` for a base that remembers
        its images.
    old_data : int or str, default "all"
        Training images of the old classes to use: `all`, `none`, or a number per class.
    merge : bool, default False
        Whether to merge classes of the same name in base and `data`; otherwise they are an error. If `data` has no new
        class, training of the whole network continues with more pictures of the classes that it knows.
    prior : str, default "base"
        Expected frequency of the old classes: as in all training images of the base, whatever `old_data` uses of them
        (`base`), as in those that are used (`used`), or a multiple of the frequency of a new class (a whole number,
        such as `10`).
    keep_old : {None, "exact"}, default None
        With `exact` the logits of the old classes stay bitwise identical; only for the method `fusion`.
    settings : iterable of str, default ()
        Overrides `field=value` of the method's training, such as `epochs=5`, as in `with_settings`.
    minutes : float, optional
        Shorten training to the updates that fit into this time; only for methods that train all layers.
    skip_damaged : bool, default False
        Whether to leave out unreadable pictures, as is always done if the base did so.
    seed : int, default 0
        Random seed of the training.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in the run's recipe.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    compile : {"auto", "on", "off"}, default "auto"
        Whether to compile the network; `auto` does so if that saves more time than it takes.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Number type of multiplications; `auto` is bfloat16 if the processor or GPU has hardware support.
    deterministic : bool, default False
        Whether to allow only bitwise reproducible algorithms, also on a GPU. The network is then not compiled.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        If the base, the data, the method or the folder are unsuitable.
    Failure
        As `train`.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.extend("runs/digits", data="digits:8@20", out="runs/four", method="nearest-mean")
    >>> reslab.Network.load(run.path).classes
    ('1', '4', '7', '8')
    """
    team = Team(pick_device(device))
    run = Run.open(base)
    # Only the base's recipe: the addresses in `data` come from the caller.
    check_remote(run.recipe.data, of=f"the recipe {run.recipe.name}", allow_remote=allow_remote)
    check_outside(out, data, data_dir=data_dir)
    known = read_weights(run.path)[1]
    skip_damaged = run.recipe.skip_damaged or skip_damaged
    if merge and knows_all(known, data, data_dir=data_dir, skip_damaged=skip_damaged):
        if method or keep_old or prior != "base":
            raise UserError(f"{data!r} has no new class, only more pictures: omit --method, --keep-old and --prior")
        read_learned(run, data_dir=data_dir)  # checks that they are unchanged
        more = plan_more(run, known, data=data, old_data=old_data, skip_damaged=skip_damaged, data_dir=data_dir)
        return train(
            with_own_settings(more, tuple(settings)),
            out=out,
            seed=seed,
            device=device,
            data_dir=data_dir,
            allow_remote=True,
            silent=silent,
            safety=safety,
            compile=compile,
            precision=precision,
            deterministic=deterministic,
            minutes=minutes,
            start=run.path,
        )
    memory = read_memory(run) if old_data == "none" else None
    method = method or ("fusion" if memory else default_method(run.recipe))
    computing = _read_computing(method, Computing(compile, precision, deterministic))
    network = Network.load(run.path, device=str(team.device))
    if network.module.head.bias is None:
        raise UserError(
            f"the head of {run.path} has no bias, which corrects for how frequent the classes are: give the network "
            "a head with a bias, and train it again"
        )
    weights = network.metadata
    wish = Wish(data, method, old_data, merge, prior, keep_old, tuple(settings), minutes, skip_damaged)
    recipe = plan_extension(
        run, weights, wish, memory=memory, data_dir=data_dir, device=team.device, precision=computing.precision
    )

    def bring_base(made: Run) -> None:
        made.write_base(run.weights_path.read_bytes())
        made.write_base_recipe(run.base_recipe)
        if memory:
            made.write_base_memory(run.memory_path.read_bytes())
        made.write_base_digests(run)

    with begin(
        recipe,
        out=out,
        seed=seed,
        team=team,
        read=lambda: read_splits(recipe, data_dir=data_dir, allow_remote=True, team=team),
        computing=computing,
        bring=bring_base,
        data_from=find_base(recipe.data, data_dir),
    ) as begun:
        tell_findings(begun, data_dir=data_dir, silent=silent)
        return Extender(begun, silent=silent, safety=safety).extend()


def resume_extension(
    path: Path | str,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    threads: int | None = None,
) -> Run:
    """Resume an interrupted extension from its newest checkpoint, or from the start if there is none yet.

    Parameters
    ----------
    path : Path or str
        The run folder made by `extend`.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in the run's recipe.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    threads : int, optional
        Number of threads, by default as many as before.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        If the folder holds no extension or its data has changed; and as `extend`.
    Failure
        As `train`.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.extend("runs/digits", data="digits:8@20", out="runs/more", method="nearest-mean")
    >>> reslab.resume_extension(run.path).is_finished  # it was not interrupted
    True
    """
    team = Team(pick_device(device))
    record = read_recorded(path, command="extend", team=team)
    if record.is_finished:
        return Run(path)
    with go_on(
        record, team=team, data_dir=data_dir, allow_remote=allow_remote, threads=threads, silent=silent
    ) as begun:
        return Extender(begun, silent=silent, safety=safety).extend()


def _read_computing(method: str, wanted: Computing) -> Computing:
    """Return how an extension computes; a head on frozen features is trained in float32 and uncompiled.

    Raises: UserError if something else was requested.
    """
    if method not in METHODS or not METHODS[method].on_features:
        return wanted
    if wanted.compile == "on" or wanted.precision == "bfloat16":
        raise UserError(
            f"{method} trains a head alone, in float32 and uncompiled: omit --compile and --precision, or choose "
            "another --method"
        )
    return replace(wanted, compile="off", precision="float32")
