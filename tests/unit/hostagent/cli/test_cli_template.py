"""The subset of Go's text/template behind --format."""

from typing import Any

import pytest

from hostagent.cli.template import Template
from hostagent.cli.templatewords import TemplateError

DOCUMENT: dict[str, Any] = {
    "Name": "/web",
    "State": {"Running": True, "Pid": 7, "Error": ""},
    "Ports": ["80", "443"],
    "Labels": {"b": "2", "a": "1"},
    "Nothing": None,
    "Map": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": None},
    "Id": "0123456789",
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
        ('{{(index (index .Map "80/tcp") 0).HostPort}}', "8080"),
        (
            "{{range $k, $v := .Map}}{{$k}}={{if $v}}{{(index $v 0).HostPort}}{{end}} {{end}}",
            "80/tcp=8080 81/tcp= ",
        ),
        ("{{if and .State.Running (not .State.Error)}}up{{end}}", "up"),
        ("{{if and .Nothing .Nothing.Status}}{{else}}none{{end}}", "none"),
        ("{{or .State.Error .Name}}", "/web"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}}", "no check"),
        ("{{with .State.Health}}{{.Status}}{{end}}.", "."),
        ('{{.Labels.nosuch}} {{index .Labels "nosuch"}}.', "<no value> ."),
        ("{{.ID}} {{slice .ID 0 4}} {{slice .ID 8}} {{truncate .ID 3}}", "0123456789 0123 89 012"),
        (
            '{{printf "%s|%5d|%-4s|%.3s|%q|%t|%%|%05d" .Name 7 "ab" .ID "x" true 42}}',
            '/web|    7|ab  |012|"x"|true|%|00042',
        ),
        ('{{.State.Pid | printf "%d-%v" 1}}', "1-7"),
        (
            "{{pad .Name 1 2}}|{{gt 2 1}} {{lt 2 1}} {{ge 2 2}} {{le 1 2}} {{ne 1 2}}",
            " /web  |true false true true true",
        ),
        ('{{eq .Name "a" "/web"}} {{len .Map}}', "true 2"),
        ("{{$x := .Name}}{{if true}}{{$x = 7}}{{$y := 8}}{{$y}}{{end}}{{$x}}", "87"),
        ('{{"a\tb"}}{{`\\t`}}', "a\tb\\t"),
        ("{{with $x := .State}}{{$x.Pid}}{{end}}{{with .State.Error}}{{else}}{{$.Name}}{{end}}", "7/web"),
        ('{{range split "a,b" ","}}<{{.}}>{{end}}{{join (split "a,b" ",") "/"}}', "<a><b>a/b"),
    ],
)
def test_a_template_renders_as_go_would(template: str, text: str) -> None:
    assert Template(template).render(DOCUMENT) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{", "{{.Name", "{{end}}", "{{if .Name}}", "{{range .Ports}}x", "{{}}", "{{.Name + 1}}",
        "{{nosuch .Name}}", "{{.Missing}}", "{{.Name.First}}", "{{$x}}",
        "{{if .Name}}a{{else unless .B}}b{{end}}", "{{.State.Health.Status}}", "{{(.Name}}", "{{.Name)}}",
        "{{range 7}}{{end}}", "{{if}}{{end}}", '{{.Name "x"}}', '{{eq .Name 7}}', '{{printf "%d" .Name}}',
        '{{printf "%s"}}', '{{printf "%s" 1 2}}', "{{slice .Id 0 99}}", "{{index .Ports -1}}", "{{break}}",
        '{{template "x"}}', "{{$x = 1}}", "{{range $a, $b, $c := .Ports}}{{end}}", "{{lt 1}}", "{{and}}",
        "{{len .State.Pid}}", '{{index .Ports "x"}}', "{{index .Ports 9}}", '{{print "\\q"}}', "{{.Name |}}",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(template: str) -> None:
    with pytest.raises(TemplateError, match=r"^template: "):
        Template(template).render(DOCUMENT)


@pytest.mark.parametrize("template", ["{{nosuch}}", "{{.A | nosuch}}", "{{if}}{{end}}", "{{(.A}}"])
def test_a_malformed_template_is_refused_before_there_is_anything_to_render(template: str) -> None:
    with pytest.raises(TemplateError, match=r"^template: "):
        Template(template)


def test_functions_leave_headings_alone() -> None:
    template = Template('{{upper .A}}\t{{printf "%.2s" .B}}\t{{join (split .A ",") "/"}}\t{{json .B}}')

    assert template.heading({"A": "ports", "B": "STATUS"}) == "ports\tST\tports\tSTATUS"
