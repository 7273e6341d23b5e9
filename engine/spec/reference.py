"""Names of images, and docker's short forms of them.

`busybox` is short for `docker.io/library/busybox:latest`. `parse` accepts any
form and gives the whole one; `Reference.familiar` gives the short one back.

Source: distribution/reference, "Grammar", and docker's normalization rules.
"""

import re
from dataclasses import dataclass, replace

from engine.base.errors import InvalidArgument
from engine.spec import digest as digests

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL_PREFIX = "library/"
_NAME_MAX_CHARS = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH_PART}(?:/{_PATH_PART})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?\Z",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A whole name: never without a domain; `tag` and `digest` may each be empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: ``busybox``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL_PREFIX)
        return self.path if "/" in rest else rest

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: ``busybox:latest``."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> "Reference":
        """Return this reference, with ``latest`` where it has neither a tag nor a digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> "Reference":
        """Return the reference of `tag` in the same repository."""
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> "Reference":
        """Return the reference of the manifest `digest` in the same repository."""
        return replace(self, tag="", digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def parse(text: str) -> Reference:
    """Return `text` as a whole reference; a missing tag stays missing.

    Raises:
        InvalidArgument: it is none; the message is docker's.
    """
    if _IDENTIFIER.match(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    repository = re.split("[:@]", remainder, maxsplit=1)[0]
    if repository != repository.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({repository}) must be lowercase")
    match = _REFERENCE.match(f"{domain}/{remainder}")
    if match is None:
        raise InvalidArgument("invalid reference format")
    if len(match["domain"]) + 1 + len(match["path"]) > _NAME_MAX_CHARS:
        raise InvalidArgument(f"repository name must not be more than {_NAME_MAX_CHARS} characters")
    digest = match["digest"] or ""
    if digest and not digests.is_digest(digest):
        raise InvalidArgument("invalid reference format: unsupported digest")
    return Reference(match["domain"], match["path"], match["tag"] or "", digest)


def is_tag(text: str) -> bool:
    """Tell whether `text` may be a tag."""
    return re.fullmatch(_TAG, text, re.ASCII) is not None


def _split_domain(text: str) -> tuple[str, str]:
    """Split off the registry; the first part of a name is one only when it looks like a host."""
    first, slash, rest = text.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    domain, remainder = (first, rest) if slash and looks_like_host else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL_PREFIX + remainder
    return domain, remainder
