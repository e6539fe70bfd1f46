"""The tree of errors is the one that its docstring draws."""

import inspect

from paxos_rsm import errors


def drawn_parents() -> dict[str, str]:
    """Child to parent, from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" │├└─").split(" ")[0] if line.startswith("    ") else ""
        if not name:
            continue
        depth = (len(line) - len(line.lstrip(" │├└─")) - 4) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def test_every_error_stands_where_it_is_drawn() -> None:
    actual = {n: c.__bases__[0].__name__ for n, c in inspect.getmembers(errors, inspect.isclass)}
    assert drawn_parents() == actual


def test_every_error_is_exported_and_says_what_it_means() -> None:
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    assert sorted(classes) == errors.__all__
    assert all(cls.__doc__ for cls in classes.values())
