"""`--set field=value`: change fields of a recipe by name.

A value is parsed as JSON if it is valid JSON, else taken as text.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import ValidationError

from reslab.errors import UserError, did_you_mean, show
from reslab.recipe.networks import Model
from reslab.recipe.recipe import Augment, Mixing, Optimizer, Recipe, Schedule, parse_recipe
from reslab.recipe.schema import REMOVED, RENAMED, RENAMED_IN_STANDARDIZE
from reslab.recipe.value import Part

_RATE = "optimizer.peak_lr"


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Change fields of a recipe by the names that `--set` takes.

    A changed recipe is no longer the published one, so its published result is removed.

    Parameters
    ----------
    recipe : Recipe
        The recipe to start from; it stays as it is.
    settings : iterable of str
        Overrides `field=value`, nested fields with dots. A value is parsed as JSON if it is valid JSON, else as text.

    Returns
    -------
    Recipe
        The changed recipe.

    Raises
    ------
    UserError
        If a field is unknown, suggesting the nearest name, or a value is invalid.

    Examples
    --------
    >>> import reslab
    >>> changed = reslab.with_settings(reslab.find_recipe("digits-quick"), ["epochs=5", "optimizer.peak_lr=0.2"])
    >>> changed.epochs, changed.optimizer.peak_lr
    (5, 0.2)
    """
    return with_fields(recipe, map(_parse_setting, settings), where="--set")


def with_fields(recipe: Recipe, fields: Iterable[tuple[str, Any]], *, where: str) -> Recipe:
    """Change fields by name, nested ones with dots; `where` names their origin in errors. Raises: UserError."""
    content = recipe.model_dump(mode="json")
    given: dict[str, Any] = {}
    for field, value in fields:
        content["published"] = None
        try:
            _set_field(content, field, value)
            if field == "optimizer.kind" and _RATE in given:
                _set_field(content, _RATE, given[_RATE])
        except UserError as error:
            raise UserError(f"{where} {field}: {error}") from None
        given[field] = value
        content = _filled(content)
    return parse_recipe(content, where=where)


def _parse_setting(setting: str) -> tuple[str, Any]:
    field, equals, text = setting.partition("=")
    if not equals:
        raise UserError(f"--set {setting}: write it as field=value, for example --set epochs=10")
    return field.strip(), _parse_value(text.strip())


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of what has been set; return content that is not valid (yet) unchanged."""
    try:
        return Recipe.model_validate(content).model_dump(mode="json")
    except ValidationError:
        return content


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _set_field(content: dict[str, Any], field: str, value: Any) -> None:
    *parents, last = field.split(".")
    place: Any = content
    for part in parents:
        _check_name(place, part, field)
        place = place[int(part)] if isinstance(place, list) else place.get(part)
    _check_name(place, last, field)
    if isinstance(place, list):
        place[int(last)] = value
    elif last == "kind":
        _change_kind(place, value)
    else:
        place[last] = value


def _check_name(place: Any, part: str, field: str) -> None:
    names = _names_in(place)
    if part in names:
        return
    if not names:
        raise UserError(f"there is no {part!r} in it, it holds {show(place)}")
    if (new := (RENAMED | RENAMED_IN_STANDARDIZE).get(part)) in names:
        raise UserError(f"{part} is now called {new}: write {new} instead")
    if part == field and part in REMOVED:
        raise UserError(REMOVED[part])
    hint = f"it has {', '.join(names)}"
    if isinstance(place, dict):
        inside = [f"{name}.{part}" for name in names if part in _names_in(place.get(name))]
        hint = f"did you mean {inside[0]!r}?" if inside else did_you_mean(part, names, otherwise=hint)
    raise UserError(f"unknown field {part!r}; {hint}")


def _members(union: Any) -> list[type[Part]]:
    """List the members of an annotated union, including nested unions."""
    members = get_args(get_args(union)[0])
    return [part for each in members for part in ([each] if isinstance(each, type) else _members(each))]


# For each kind, the members of its union by kind, by which it may be replaced.
_SIBLINGS: dict[str, dict[str, type[Part]]] = {
    kind: {part.model_fields["kind"].default: part for part in parts}
    for parts in map(_members, (Model, Augment, Mixing, Optimizer, Schedule))
    for kind in (part.model_fields["kind"].default for part in parts)
}


def _names_in(place: Any) -> list[str]:
    """List the fields that can be set in a part, which after a change of kind are more than it contains."""
    match place:
        case list():
            return [str(index) for index in range(len(place))]
        case dict():
            kind = str(place.get("kind"))
            part = _SIBLINGS.get(kind, {}).get(kind, Part)
            return list(dict.fromkeys((*place, *part.model_fields)))
    return []


def _change_kind(place: dict[str, Any], kind: Any) -> None:
    """Change a part to another kind, keeping the fields that both have, but not a rate, which is one optimizer's."""
    siblings = _SIBLINGS.get(str(place["kind"]), {})
    if not isinstance(kind, str) or kind not in siblings:
        hint = did_you_mean(str(kind), siblings, otherwise=f"choose from {', '.join(siblings)}")
        raise UserError(f"unknown kind {show(kind)}; {hint}")
    kept = {name: value for name, value in place.items() if name in siblings[kind].model_fields}
    if kind != place["kind"]:
        kept.pop("peak_lr", None)
    place.clear()
    place.update(kept | {"kind": kind})


def name_values(content: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Yield every value of a recipe in JSON with its name for `--set`, leaving out absent ones."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if parts is None:
        if content is not None:
            yield ".".join(path), content
        return
    for name, part in parts:
        yield from name_values(part, *path, str(name))
