"""Read the Test Anything Protocol, as the suites print it; pure.

Source: TAP version 13, "The test line" and "Directives".
"""

import re
from collections.abc import Iterator

from tests.conformance.verdicts import Verdict

_LINE = re.compile(r"^(?P<failed>not )?ok\b(?: (?P<number>\d+))?(?: -)? ?(?P<text>.*)$")
_DIRECTIVE = re.compile(r"\s*#\s*(?:skip|todo)\b.*$", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def read(text: str) -> Iterator[tuple[str, Verdict]]:
    """Yield what each test line says: a name that is the same in every run, and the verdict.

    Lines that are indented belong to diagnostics, where runtimetest's own output is quoted.
    """
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        name = _DIRECTIVE.sub("", found["text"])
        if name != found["text"]:
            verdict = Verdict.SKIPPED
        else:
            verdict = Verdict.FAILED if found["failed"] else Verdict.PASSED
        yield _UUID.sub("ID", name).strip() or f"test {found['number'] or ''}".strip(), verdict
