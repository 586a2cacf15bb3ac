"""Commands whose options are grouped: a frozen dataclass says what several of them share, once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer can take it: a parameter that is a dataclass becomes one parameter for each field.

    A field's annotation is what typer reads, as in `threads: Annotated[int, typer.Option(min=1)] = 1`.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: p.annotation for name, p in signature.parameters.items() if is_dataclass(p.annotation)
    }

    def call(**given: Any) -> None:
        made = {
            name: group(**{f.name: given.pop(f.name) for f in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    parameters = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += _of_fields(groups[name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__annotations__ = {}  # else typer would ask for those of `given`
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _of_fields(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name]
        )
        for f in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
