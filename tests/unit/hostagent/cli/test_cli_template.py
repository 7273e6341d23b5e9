"""The subset of Go's text/template behind --format."""

from typing import Any

import pytest

from engine.base.errors import InvalidArgument
from hostagent.cli.template import Template

DOCUMENT: dict[str, Any] = {
    "Name": "/web",
    "State": {"Running": True, "Pid": 7, "Error": ""},
    "Ports": ["80", "443"],
    "Labels": {"b": "2", "a": "1"},
    "Nothing": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{ .State.Pid }} {{.State.Running}}", "7 true"),
        ("{{json .State}}", '{"Running":true,"Pid":7,"Error":""}'),
        ('{{index .Labels "a"}}{{index .Ports 1}}', "1443"),
        ("{{len .Ports}}", "2"),
        ('{{join .Ports ", "}}', "80, 443"),
        ("{{.Name | upper | json}}", '"/WEB"'),
        ("{{range .Ports}}[{{.}}]{{end}}", "[80][443]"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range $v := .Ports}}{{$v}}{{$.Name}} {{end}}", "80/web 443/web "),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Error}}bad{{else}}good{{end}}", "good"),
        ("{{if .State.Error}}1{{else if .Nothing}}2{{else}}3{{end}}", "3"),
        ("{{if .State.Error}}1{{else if .State.Pid}}2{{else}}3{{end}}", "2"),
        ("{{if .Nothing}}1{{else if .State.Error}}2{{end}}.", "."),
        ("{{with .State}}{{.Pid}}{{end}}", "7"),
        ("{{if eq .State.Pid 7}}seven{{end}}{{if not .Nothing}}!{{end}}", "seven!"),
        ("a {{- .Name -}} b", "a/webb"),
        ("{{/* nothing to see */}}x", "x"),
        ("{{.Nothing}} {{.Labels}} {{.Ports}}", "<no value> map[a:1 b:2] [80 443]"),
        ('{{print "a\\tb"}}', "a\tb"),
        ("{{println .Name}}", "/web\n"),
    ],
)
def test_a_template_renders_as_go_would(template: str, text: str) -> None:
    assert Template(template).render(DOCUMENT) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{", "{{.Name", "{{end}}", "{{if .Name}}", "{{range .Ports}}x", "{{}}", "{{.Name + 1}}",
        "{{nosuch .Name}}", "{{.Missing}}", "{{.Name.First}}", "{{$x}}",
        "{{if .Name}}a{{else unless .B}}b{{end}}",
        "{{len .State.Pid}}", '{{index .Ports "x"}}', "{{index .Ports 9}}", '{{print "\\q"}}', "{{.Name |}}",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(template: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^template: "):
        Template(template).render(DOCUMENT)
