import base64

import pytest

from engine.api.routes.images import registry_auth
from engine.base.errors import InvalidArgument
from engine.images.model import RegistryAuth


@pytest.mark.parametrize("padding", ["", "="])
def test_credentials_come_in_base64url_with_or_without_padding(padding: str) -> None:
    text = base64.urlsafe_b64encode(b'{"username":"me","password":"\xc3\xbf?>"}').decode().rstrip("=")
    text += padding * (-len(text) % 4)

    assert registry_auth(text) == RegistryAuth("me", "\u00ff?>", "", "")


def test_no_header_means_nobody() -> None:
    assert registry_auth("") == RegistryAuth()
    assert registry_auth(base64.urlsafe_b64encode(b"{}").decode()) == RegistryAuth()


@pytest.mark.parametrize("header", ["a", "e30x!", "W10", "x" * 70_000])
def test_a_header_that_makes_no_sense_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid X-Registry-Auth header"):
        registry_auth(header)
