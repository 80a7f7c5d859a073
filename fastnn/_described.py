"""What a model file or a configuration describes: a name from a table, and arguments by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def made(kind: str, known: Mapping[str, Callable[..., Any]], description: Any, *arguments: Any) -> Any:
    """What the `known` callable of the name description["type"] makes of `arguments` and the other entries.

    A name alone describes what needs no more. Nothing is called before name and arguments are known to be right; what
    is wrong is a ValueError, or the error of the callable.
    """
    entries = {"type": description} if isinstance(description, str) else description
    if not isinstance(entries, dict):
        raise ValueError(f"{kind} is described by {description!r}; expected a table with its type")
    name, options = entries.get("type"), {k: v for k, v in entries.items() if k != "type"}
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown {kind} {name!r}; expected one of {', '.join(known)}")
    signature = signature_of(known[name])
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        names = list(signature.parameters)[len(arguments) :]
        raise ValueError(f"{name}: {error}; expected {', '.join(names) or 'no argument'}") from None
    return known[name](*arguments, **options)


def signature_of(one: Callable[..., Any]) -> inspect.Signature:
    """How it is called; a layer's `__new__` would hide its constructor."""
    if not isinstance(one, type):
        return inspect.signature(one)
    signature = inspect.signature(one.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])
