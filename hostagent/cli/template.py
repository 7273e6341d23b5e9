"""The part of Go's text/template that people use with --format; no I/O.

Understood: ``{{.A.B}}``, ``{{json .A}}``, ``{{index .A "key"}}``, ``{{len .A}}``, ``{{upper .A}}``,
``lower``, ``title``, ``{{join .A ", "}}``, ``{{range .A}}..{{end}}`` (with ``$k, $v :=`` too),
``{{with .A}}``, ``{{if .A}}..{{else if .B}}..{{else}}..{{end}}``, ``{{println}}``, pipes, comments, trims.
Anything else is refused.

Source: pkg.go.dev/text/template; docker documentation, "Format command and log output".
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import InvalidArgument

_ACTION = re.compile(r"(\s*)\{\{(-\s)?(.*?)(\s-)?\}\}(\s*)", re.DOTALL)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|`([^`]*)`|(\$?[\w.$-]+|\(|\)|\|)')
_RANGE = re.compile(r"(?:(\$\w*)\s*(?:,\s*(\$\w+)\s*)?:=\s*)?(.*)\Z", re.DOTALL)
_NODE = tuple[str, str, "list[Any]", "list[Any]"]  # kind, text, children, else


class Template:
    """One parsed template."""

    def __init__(self, text: str) -> None:
        """Parse `text`.

        Raises:
            InvalidArgument: it is malformed, or uses what is not understood.
        """
        tokens = list(_tokens(text))
        self._nodes, rest, _ = _parse(tokens, 0, inside=False)
        if rest != len(tokens):
            raise InvalidArgument("template: unexpected {{end}}")

    def render(self, value: Any) -> str:  # noqa: ANN401 (any document)
        """Return the text for `value`.

        Raises:
            InvalidArgument: a field does not exist.
        """
        return _render(self._nodes, value, {"$": value})


def _tokens(text: str) -> list[tuple[str, str]]:
    """Return ("text", ...) and ("action", ...) in order, blanks trimmed where a mark asks for it."""
    found: list[tuple[str, str]] = []
    at = 0
    for match in _ACTION.finditer(text):
        before, trim_left, action, trim_right, after = match.groups()
        literal = text[at : match.start()] + ("" if trim_left else before)
        if literal:
            found.append(("text", literal))
        found.append(("action", action.strip()))
        at = match.end() if trim_right else match.end() - len(after)
    if "{{" in text[at:]:
        raise InvalidArgument(f"template: unclosed action in {text!r}")
    if text[at:]:
        found.append(("text", text[at:]))
    return found


def _parse(tokens: Sequence[tuple[str, str]], at: int, *, inside: bool) -> tuple[list[Any], int, str]:
    """Return the nodes up to `else`, `end` or the end, where that is, and which of them it was."""
    nodes: list[Any] = []
    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        word = text.partition(" ")[0] if kind == "action" else ""
        if word in ("end", "else"):
            if not inside:
                return nodes, at - 1, word
            return nodes, at, word
        if word in ("range", "if", "with"):
            node, at = _block(word, text[len(word) :].strip(), tokens, at)
            nodes.append(node)
        elif kind == "text" or not text.startswith("/*"):
            nodes.append((kind, text, [], []))
    return nodes, at, ""


def _block(word: str, condition: str, tokens: Sequence[tuple[str, str]], at: int) -> tuple[Any, int]:
    """Return the node of a range, if or with whose body begins at `at`, and where its end is.

    ``{{else if .B}}`` is an ``if`` inside the ``else``, and shares its ``end``.
    """
    body, at, ended = _parse(tokens, at, inside=True)
    other: list[Any] = []
    if ended == "else":
        nested, _, rest = tokens[at - 1][1].removeprefix("else").strip().partition(" ")
        if nested in ("if", "with"):
            node, at = _block(nested, rest.strip(), tokens, at)
            return (word, condition, body, [node]), at
        if nested:
            raise InvalidArgument(f"template: unexpected {{{{else {nested}}}}}")
        other, at, ended = _parse(tokens, at, inside=True)
    if ended != "end":
        raise InvalidArgument(f"template: {{{{{word}}}}} without {{{{end}}}}")
    return (word, condition, body, other), at


def _render(nodes: Sequence[Any], dot: Any, names: dict[str, Any]) -> str:  # noqa: ANN401 (any document)
    return "".join(_node(node, dot, names) for node in nodes)


def _node(node: _NODE, dot: Any, names: dict[str, Any]) -> str:  # noqa: ANN401 (any document)
    kind, text, body, other = node
    if kind == "text":
        return text
    if kind == "action":
        return _text(_pipeline(text, dot, names))
    if kind == "range":
        return _loop(text, body, other, dot, names)
    value = _pipeline(text, dot, names)
    if not value:
        return _render(other, dot, names)
    return _render(body, value if kind == "with" else dot, names)


def _loop(text: str, body: list[Any], other: list[Any], dot: Any, names: dict[str, Any]) -> str:  # noqa: ANN401
    match = _RANGE.match(text)
    assert match is not None  # noqa: S101 (its last group takes anything)
    first, second, expression = match.groups()
    value = _pipeline(expression, dot, names)
    if not value:
        return _render(other, dot, names)
    pairs = sorted(value.items()) if isinstance(value, Mapping) else enumerate(value)
    parts = []
    for key, item in pairs:
        scope = dict(names)
        if second:
            scope |= {first: key, second: item}
        elif first:
            scope[first] = item
        parts.append(_render(body, item, scope))
    return "".join(parts)


def _pipeline(text: str, dot: Any, names: dict[str, Any]) -> Any:  # noqa: ANN401 (any document)
    if _WORD.sub("", text).strip():
        raise InvalidArgument(f"template: {{{{{text}}}}} is not understood")
    words = [_word(match) for match in _WORD.finditer(text)]
    if not words:
        raise InvalidArgument("template: empty action")
    stages: list[list[tuple[str, str]]] = [[]]
    for word in words:
        if word == ("name", "|"):
            stages.append([])
        else:
            stages[-1].append(word)
    value: list[Any] = []
    for stage in stages:
        value = [_command(stage, dot, names, value)]
    return value[0]


def _word(match: re.Match[str]) -> tuple[str, str]:
    if match[1] is not None:
        try:
            return "string", json.loads(f'"{match[1]}"')
        except ValueError as err:
            raise InvalidArgument(f"template: bad string {match[0]}") from err
    if match[2] is not None:
        return "string", match[2]
    return "name", match[3]


def _command(words: list[tuple[str, str]], dot: Any, names: dict[str, Any], piped: list[Any]) -> Any:  # noqa: ANN401
    if not words:
        raise InvalidArgument("template: empty command")
    kind, head = words[0]
    if kind == "name" and head in _FUNCTIONS:
        arguments = [_operand(word, dot, names) for word in words[1:]] + piped
        try:
            return _FUNCTIONS[head](*arguments)
        except (TypeError, KeyError, IndexError, AttributeError) as err:
            raise InvalidArgument(f"template: {head}: {err}") from err
    if len(words) > 1:
        raise InvalidArgument(f"template: function {head!r} is not known")
    return _operand(words[0], dot, names)


def _operand(word: tuple[str, str], dot: Any, names: dict[str, Any]) -> Any:  # noqa: ANN401 (any document)
    kind, text = word
    if kind == "string":
        return text
    if text.lstrip("-").isdigit():
        return int(text)
    if text in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[text]
    if text.startswith("$"):
        name, _, path = text.partition(".")
        if name not in names:
            raise InvalidArgument(f"template: undefined variable {name!r}")
        return _field(names[name], path)
    if text.startswith("."):
        return _field(dot, text[1:])
    raise InvalidArgument(f"template: function {text!r} is not known")


def _field(value: Any, path: str) -> Any:  # noqa: ANN401 (any document)
    for name in filter(None, path.split(".")):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"template: can't evaluate field {name} in {_text(value)!r}")
        if name not in value:
            raise InvalidArgument(f"template: map has no entry for key {name!r}")
        value = value[name]
    return value


def _text(value: Any) -> str:  # noqa: ANN401 (any document)
    """Return a value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(_text, value)) + "]"
    return str(value)


def _json(value: Any) -> str:  # noqa: ANN401 (any document)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:  # noqa: ANN401 (any document)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


_FUNCTIONS: dict[str, Any] = {
    "json": _json,
    "index": _index,
    "len": len,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": lambda items, separator: separator.join(map(str, items)),
    "split": lambda text, separator: text.split(separator),
    "println": lambda *items: " ".join(map(_text, items)) + "\n",
    "print": lambda *items: "".join(map(_text, items)),
    "eq": lambda one, *others: one in others,
    "ne": lambda one, other: one != other,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}
