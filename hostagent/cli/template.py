"""The part of Go's text/template that people use with --format; no I/O.

Understood: fields, variables, pipes, parentheses, ``if``/``range``/``with`` with ``else`` and ``end``,
comments, trims, and the functions of `hostagent.cli.templatewords`. Anything else is refused, when
the template is read.

A template becomes closures: `_Node` gives text, `_Expression` a value.

Source: pkg.go.dev/text/template; docker documentation, "Format command and log output".
"""

import json
import re
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hostagent.cli.templatewords import FUNCTIONS, HEADING_FUNCTIONS, TemplateError, shown

_ACTION = re.compile(r"(\s*)\{\{(-\s)?(.*?)(\s-)?\}\}(\s*)", re.DOTALL)
_WORD = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
      | (?P<sign>:=|=|,|\||\()
      | (?P<close>\)(?:\.[\w.]+)?)
      | (?P<name>\$?\.?\w[\w.]*|\$|\.)
    )""",
    re.VERBOSE | re.ASCII,
)
_CONSTANTS = {"true": True, "false": False, "nil": None}
_BLOCKS = frozenset({"if", "range", "with"})
_REFUSED = frozenset({"define", "template", "block", "break", "continue"})
# Fields that docker's documents leave out when there is nothing to say: nil there, so None here.
_OPTIONAL = frozenset({"Health", "Healthcheck", "Error", "Annotations", "ImageManifestDescriptor", "Storage"})


@dataclass(frozen=True, slots=True)
class _Scope:
    dot: Any
    names: MutableMapping[str, Any]
    functions: Mapping[str, Callable[..., Any]]

    def inner(self, dot: Any) -> "_Scope":  # noqa: ANN401 (any document)
        return replace(self, dot=dot, names=ChainMap({}, self.names))


_Expression = Callable[[_Scope], Any]
_Node = Callable[[_Scope], str]


class Template:
    """One parsed template."""

    def __init__(self, text: str) -> None:
        """Parse `text`.

        Raises:
            TemplateError: it is malformed, or uses what is not understood.
        """
        parser = _Parser(_tokens(text))
        self._nodes, ended = parser.nodes()
        if ended:
            raise TemplateError(f"template: unexpected {{{{{ended}}}}}")

    def render(self, value: Any) -> str:  # noqa: ANN401 (any document)
        """Return the text for `value`.

        Raises:
            TemplateError: a field does not exist, or a function does not take what it is given.
        """
        return _joined(self._nodes, _Scope(value, {"$": value}, FUNCTIONS))

    def heading(self, titles: Mapping[str, Any]) -> str:
        """Return the heading of a table of which this is a row: functions leave titles as they are."""
        return _joined(self._nodes, _Scope(titles, {"$": titles}, HEADING_FUNCTIONS))


def _joined(nodes: Sequence[_Node], scope: _Scope) -> str:
    return "".join(node(scope) for node in nodes)


def _tokens(text: str) -> list[tuple[str, str]]:
    """Return ("text", ...) and ("action", ...) in order, blanks trimmed where a mark asks for it."""
    found: list[tuple[str, str]] = []
    at = 0
    for match in _ACTION.finditer(text):
        before, trim_left, action, trim_right, after = match.groups()
        literal = text[at : match.start()] + ("" if trim_left else before)
        if literal:
            found.append(("text", literal))
        if not action.startswith("/*"):
            found.append(("action", action.strip()))
        at = match.end() if trim_right else match.end() - len(after)
    if "{{" in text[at:]:
        raise TemplateError(f"template: unclosed action in {text!r}")
    if text[at:]:
        found.append(("text", text[at:]))
    return found


class _Parser:
    """Reads the tokens once, from left to right."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self._tokens = iter(tokens)

    def nodes(self) -> tuple[list[_Node], str]:
        """Return the nodes up to an `else`, an `end` or the end, and which action ended them."""
        nodes: list[_Node] = []
        for kind, text in self._tokens:
            if kind == "text":
                nodes.append(lambda _scope, text=text: text)  # type: ignore[misc]
                continue
            word, _, rest = text.partition(" ")
            if word in ("end", "else"):
                return nodes, text
            nodes.append(self._block(word, rest) if word in _BLOCKS else _action(text))
        return nodes, ""

    def _block(self, word: str, text: str) -> _Node:
        """Return the node of an if, range or with; ``{{else if .B}}`` shares the `end` of its `if`."""
        names, condition = _condition(word, text)
        body, ended = self.nodes()
        other: list[_Node] = []
        if ended != "end" and ended:
            nested, _, rest = ended.removeprefix("else").strip().partition(" ")
            if nested in ("if", "with"):
                return _BUILDERS[word](names, condition, body, [self._block(nested, rest)])
            if nested:
                raise TemplateError(f"template: unexpected {{{{{ended}}}}}")
            other, ended = self.nodes()
        if ended != "end":
            raise TemplateError(f"template: {{{{{word}}}}} without {{{{end}}}}")
        return _BUILDERS[word](names, condition, body, other)


def _condition(word: str, text: str) -> tuple[list[str], _Expression]:
    """Return the variables that a block declares, and its value: ``$k, $v := .Ports``."""
    words = _words(text)
    names: list[str] = []
    if (":=", ":=") in words:
        at = words.index((":=", ":="))
        names = [name for kind, name in words[:at] if kind == "name"]
        expected = [item for name in names for item in (("name", name), (",", ","))][:-1]
        if words[:at] != expected or not 0 < len(names) <= (2 if word == "range" else 1):
            raise TemplateError(f"template: {{{{{word} {text}}}}} is not understood")
        words = words[at + 1 :]
    if not words:
        raise TemplateError(f"template: missing value for {word}")
    return names, _pipeline(words, text)


def _action(text: str) -> _Node:
    words = _words(text)
    if words[1:2] in ([(":=", ":=")], [("=", "=")]) and words[0][1].startswith("$"):
        return _assignment(words[0][1], _pipeline(words[2:], text), declare=words[1][0] == ":=")
    value = _pipeline(words, text)
    return lambda scope: shown(value(scope))


def _assignment(name: str, value: _Expression, *, declare: bool) -> _Node:
    def node(scope: _Scope) -> str:
        target = scope.names
        while not declare and isinstance(target, ChainMap) and name not in target.maps[0]:
            target = target.maps[1]
        if not declare and name not in target:
            raise TemplateError(f"template: undefined variable {name!r}")
        target[name] = value(scope)
        return ""

    return node


def _words(text: str) -> list[tuple[str, str]]:
    """Return the words of an action as (kind, text); a sign is its own kind."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip()):
        match = _WORD.match(text, at)
        if match is None or match.lastgroup is None:
            raise TemplateError(f"template: {{{{{text}}}}} is not understood")
        kind, word = match.lastgroup, match[match.lastgroup]
        found.append((word if kind == "sign" else kind, word))
        at = match.end()
    return found


def _pipeline(words: Sequence[tuple[str, str]], text: str) -> _Expression:
    """Return the value of ``a | b c``; all of `words` must be used."""
    rest = list(words)
    value = _read_pipeline(rest, text)
    if rest:
        raise TemplateError(f"template: unexpected {rest[0][1]!r} in {{{{{text}}}}}")
    return value


def _read_pipeline(rest: list[tuple[str, str]], text: str) -> _Expression:
    """Return the value of a pipeline, taken from the front of `rest`."""
    value = _read_command(rest, text, None)
    while rest and rest[0][0] == "|":
        del rest[0]
        value = _read_command(rest, text, value)
    return value


def _read_command(rest: list[tuple[str, str]], text: str, piped: _Expression | None) -> _Expression:
    if not rest or rest[0][0] in {"|", "close"}:
        raise TemplateError(f"template: missing value in {{{{{text}}}}}")
    name = rest[0][1] if rest[0][0] == "name" and rest[0][1] in FUNCTIONS else ""
    head = _read_operand(rest, text) if not name else None
    del rest[: 1 if name else 0]
    arguments = []
    while rest and rest[0][0] in {"string", "number", "name", "("}:
        arguments.append(_read_operand(rest, text))
    if piped is not None:
        arguments.append(piped)
    if head is None:
        return _call(name, arguments)
    return _method(head, arguments, text) if arguments else head


def _call(name: str, arguments: Sequence[_Expression]) -> _Expression:
    if name in ("and", "or"):
        return _short_circuit(arguments, stop_at=name == "or")

    def value(scope: _Scope) -> Any:  # noqa: ANN401 (any document)
        given = [argument(scope) for argument in arguments]
        try:
            return scope.functions[name](*given)
        except (TypeError, KeyError, IndexError, AttributeError, ValueError) as err:
            raise TemplateError(f"template: {name}: {err}") from err

    return value


def _short_circuit(arguments: Sequence[_Expression], *, stop_at: bool) -> _Expression:
    if not arguments:
        raise TemplateError(f"template: {'or' if stop_at else 'and'}: missing argument")

    def value(scope: _Scope) -> Any:  # noqa: ANN401 (any document)
        found = None
        for argument in arguments:
            found = argument(scope)
            if bool(found) == stop_at:
                break
        return found

    return value


def _method(head: _Expression, arguments: Sequence[_Expression], text: str) -> _Expression:
    """Return the value of ``.Label "name"``: a field that takes arguments."""

    def value(scope: _Scope) -> Any:  # noqa: ANN401 (any document)
        function = head(scope)
        if not callable(function):
            raise TemplateError(f"template: {{{{{text}}}}}: the first word is no function")
        return function(*(argument(scope) for argument in arguments))

    return value


def _read_operand(rest: list[tuple[str, str]], text: str) -> _Expression:
    kind, word = rest.pop(0)
    if kind == "(":
        inner = _read_pipeline(rest, text)
        if not rest or rest[0][0] != "close":
            raise TemplateError(f"template: unclosed parenthesis in {{{{{text}}}}}")
        path = rest.pop(0)[1].removeprefix(")")
        return lambda scope: _field(inner(scope), path)
    if kind == "string":
        constant = _string(word)
        return lambda _scope: constant
    if kind == "number":
        number = float(word) if "." in word else int(word)
        return lambda _scope: number
    if kind == "name":
        return _named(word)
    raise TemplateError(f"template: unexpected {word!r} in {{{{{text}}}}}")


def _named(word: str) -> _Expression:
    if word.startswith("."):
        return lambda scope: _field(scope.dot, word)
    if word.startswith("$"):
        name, _, path = word.partition(".")
        return lambda scope: _field(_variable(scope, name), path)
    if word in _CONSTANTS:
        return lambda _scope: _CONSTANTS[word]
    if word in FUNCTIONS:
        return _call(word, [])
    what = f"{{{{{word}}}}} is not supported" if word in _REFUSED else f"function {word!r} is not known"
    raise TemplateError(f"template: {what}")


def _string(word: str) -> str:
    if word.startswith("`"):
        return word[1:-1]
    try:
        return str(json.loads(word, strict=False))
    except ValueError as err:
        raise TemplateError(f"template: bad string {word}") from err


def _variable(scope: _Scope, name: str) -> Any:  # noqa: ANN401 (any document)
    if name not in scope.names:
        raise TemplateError(f"template: undefined variable {name!r}")
    return scope.names[name]


def _field(value: Any, path: str) -> Any:  # noqa: ANN401 (any document)
    for name in filter(None, path.split(".")):
        if value is None:
            raise TemplateError(f"template: nothing there to take field {name!r} of")
        if not isinstance(value, Mapping):
            raise TemplateError(f"template: can't evaluate field {name} in {shown(value)!r}")
        value = value[name] if name in value else _absent(value, name)
    return value


def _absent(value: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 (any document)
    """Return what a field is that has another case (Go's ``ID``, the API's ``Id``), or may be left out.

    A name that begins in lower case is no field of a Go struct but a key of the
    user's, a label perhaps: absent, it has no value.
    """
    same = [key for key in value if key.lower() == name.lower()]
    if len(same) == 1:
        return value[same[0]]
    if name in _OPTIONAL or not name[0].isupper():
        return None
    raise TemplateError(f"template: map has no entry for key {name!r}")


def _if(names: list[str], condition: _Expression, body: list[_Node], other: list[_Node]) -> _Node:
    def node(scope: _Scope) -> str:
        value = condition(scope)
        inner = scope.inner(scope.dot)
        inner.names.update(dict.fromkeys(names, value))
        return _joined(body if value else other, inner)

    return node


def _with(names: list[str], condition: _Expression, body: list[_Node], other: list[_Node]) -> _Node:
    def node(scope: _Scope) -> str:
        value = condition(scope)
        inner = scope.inner(value or scope.dot)
        inner.names.update(dict.fromkeys(names, value))
        return _joined(body if value else other, inner)

    return node


def _range(names: list[str], condition: _Expression, body: list[_Node], other: list[_Node]) -> _Node:
    def node(scope: _Scope) -> str:
        value = condition(scope)
        if not value:
            return _joined(other, scope.inner(scope.dot))
        if not isinstance(value, Mapping | list | tuple):
            raise TemplateError(f"template: range can't iterate over {shown(value)}")
        pairs = sorted(value.items()) if isinstance(value, Mapping) else enumerate(value)
        parts = []
        for key, item in pairs:
            inner = scope.inner(item)
            inner.names.update(zip(names, (key, item) if len(names) > 1 else (item,), strict=False))
            parts.append(_joined(body, inner))
        return "".join(parts)

    return node


_BUILDERS = {"if": _if, "with": _with, "range": _range}
