"""docs/api.md is what the public names say of themselves. After a change: python tests/test_api.py."""

import inspect
from pathlib import Path

import guidedflow as gf

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """\
# The Python interface

Everything that `import guidedflow as gf` offers, with what each says of itself. Written by `python tests/test_api.py`,
and compared with the code by the tests.
"""


def reference() -> str:
    """The page's text."""
    return "\n".join([HEAD, *(_entry(name, getattr(gf, name)) for name in sorted(gf.__all__, key=str.lower))])


def _entry(name: str, value: object) -> str:
    heading = f"## gf.{name}\n"
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f"{heading}\nThe names and classes: {', '.join(map(str, value))}.\n"  # type: ignore[call-overload]
    parts = [heading, f"```text\n{inspect.getdoc(value)}\n```\n"]
    if inspect.isfunction(value):
        parameters = ", ".join(_parameter(one) for one in inspect.signature(value).parameters.values())
        parts.insert(1, f"`gf.{name}({parameters})`\n")
    else:
        members = {n: m for n, m in vars(value).items() if not n.startswith("_") and inspect.getdoc(m)}
        named = [n for n, m in members.items() if isinstance(m, property | classmethod) or inspect.isfunction(m)]
        if named and not issubclass(value, Exception):
            parts.append(f"Members: {', '.join(f'`{n}`' for n in named)}.\n")
    return "\n".join(parts)


def _parameter(parameter: inspect.Parameter) -> str:
    star = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
    default = parameter.default
    if default is parameter.empty or star:
        return f"{star}{parameter.name}"
    return f"{parameter.name}={'...' if callable(default) else repr(default)}"


def test_the_page_is_what_the_names_say_of_themselves():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run python tests/test_api.py"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
