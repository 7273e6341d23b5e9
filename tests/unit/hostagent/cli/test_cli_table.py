"""Tables, listings and documents as docker prints them."""

import pytest

from hostagent.cli.documents import write_document
from hostagent.cli.table import ellipsis, table_lines, write_listing
from hostagent.cli.templatewords import go_quote

ROWS = [{"ID": "1", "Name": "one"}, {"ID": "2", "Name": "zwölf"}]
HEADERS = {"ID": "ID", "Name": "NAME"}


def test_columns_are_padded_as_tabwriter_does() -> None:
    assert table_lines([["ID", "NAME"], ["123456789", "x"], ["宽", "y"]]) == [
        "ID          NAME",
        "123456789   x",
        "宽          y",
    ]


@pytest.mark.parametrize(
    ("form", "quiet", "text"),
    [
        ("", None, "ID        NAME\n1         one\n2         zwölf\n"),
        ("table", "ID", "1\n2\n"),
        ("json", "ID", '{"ID":"1","Name":"one"}\n{"ID":"2","Name":"zwölf"}\n'),
        ("{{.Name}}!", None, "one!\nzwölf!\n"),
        ("table {{.Name}}\\t{{.ID}}", None, "NAME      ID\none       1\nzwölf     2\n"),
    ],
)
def test_a_listing_takes_every_form(
    capsys: pytest.CaptureFixture[str], form: str, quiet: str | None, text: str
) -> None:
    write_listing(ROWS, form=form, columns=("ID", "Name"), headers=HEADERS, quiet=quiet)

    assert capsys.readouterr().out == text


def test_a_listing_of_nothing_has_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    write_listing([], form="", columns=("ID", "Name"), headers=HEADERS)

    assert capsys.readouterr().out == "ID        NAME\n"


@pytest.mark.parametrize(
    ("form", "text"), [("", '{\n    "a": 1\n}\n'), ("json", '{"a":1}\n'), ("{{.a}}", "1\n")]
)
def test_a_document_takes_every_form(capsys: pytest.CaptureFixture[str], form: str, text: str) -> None:
    write_document({"a": 1}, form)

    assert capsys.readouterr().out == text


def test_long_words_are_cut_and_control_characters_shown() -> None:
    assert ellipsis("abcdef", 4) == "abc…"
    assert ellipsis("abcd", 4) == "abcd"
    assert go_quote('a"\n\x1b') == '"a\\"\\n\\x1b"'
