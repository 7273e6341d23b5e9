"""A registry's API for one repository: manifests and blobs, with the dance for credentials.

Synchronous, for worker threads: urllib3 knows TLS, proxies and connection
pools better than we should.

Source: OCI distribution-spec 1.1; docker registry token authentication;
RFC 9110 sections 11 and 14 (challenges, ranges).
"""

import base64
import ipaddress
import logging
import os
import re
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from engine.base.errors import Denied, EngineError, InvalidArgument, NotFound, Unavailable
from engine.images.model import RegistryAuth
from engine.spec.distribution import INDEX_TYPES, MANIFEST_TYPES, RegistryErrors
from engine.spec.reference import Reference

logging.getLogger("urllib3").setLevel(logging.ERROR)  # what finally fails is told to the client

_HUB = "registry-1.docker.io"
_ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
_CHALLENGE = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_TIMEOUT = urllib3.Timeout(connect=15.0, read=60.0)
_TOKEN_MAX_BYTES = 1 << 20
_OK, _PARTIAL, _UNAUTHORIZED, _FORBIDDEN, _MISSING, _TOO_MANY = 200, 206, 401, 403, 404, 429
_SERVER_ERROR = 500


class Unknown(NotFound):
    """The registry does not have it; docker's words."""

    def __init__(self, text: str) -> None:
        super().__init__("reference", text)
        self.args = (text,)


class _Token(msgspec.Struct):
    """Answer of a token server."""

    token: str = ""
    access_token: str = ""


class Registry:
    """One repository of one registry; safe from several threads."""

    def __init__(self, name: Reference, auth: RegistryAuth) -> None:
        self._name = name
        self._auth = auth
        self._host = _HUB if name.domain == "docker.io" else name.domain
        self._scheme = "https"
        self._is_known = not _is_loopback(self._host)  # whether it is known to speak TLS, or not to
        self._http = _pool(self._host)
        self._authorization = f"Bearer {auth.registry_token}" if auth.registry_token else ""
        self._lock = threading.Lock()

    def manifest(self, target: str, limit_bytes: int) -> tuple[bytes, str]:
        """Return the bytes of the manifest `target` (tag or digest) and its media type.

        Raises:
            NotFound, Denied, Unavailable: the registry's answer, in docker's words.
            InvalidArgument: it is larger than `limit_bytes`.
        """
        answer = self.open(f"manifests/{target}", {"Accept": _ACCEPT})
        try:
            if answer.status != _OK:
                raise self._refusal(answer, target)
            data = answer.read(limit_bytes + 1)
        except HTTPError as err:
            raise self._unreachable(err) from err
        finally:
            answer.release_conn()
        if len(data) > limit_bytes:
            raise InvalidArgument(f"manifest of more than {limit_bytes} bytes")
        return data, answer.headers.get("Content-Type", "").partition(";")[0].strip()

    def blob(self, digest: str, offset: int) -> Any:  # noqa: ANN401 (urllib3's response)
        """Return the open answer for a blob, from `offset` on where the registry can (status 206).

        Raises:
            NotFound, Denied, Unavailable: the registry's answer.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self.open(f"blobs/{digest}", headers)
        if answer.status not in (_OK, _PARTIAL):
            try:
                raise self._refusal(answer, digest)
            finally:
                answer.release_conn()
        return answer

    def open(self, path: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 (urllib3's response)
        """Make a GET request, with credentials if the registry asks for some."""
        answer = self._get(path, headers)
        if answer.status != _UNAUTHORIZED:
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        answer.drain_conn()
        answer.release_conn()
        with self._lock:
            self._authorization = self._answer_challenge(challenge)
        return self._get(path, headers)

    def _get(self, path: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 (urllib3's response)
        own = {"Authorization": self._authorization} if self._authorization else {}
        url = f"{self._host}/v2/{self._name.path}/{path}"
        try:
            answer = self._request(f"{self._scheme}://{url}", {**headers, **own})
        except HTTPError as err:
            if not self._is_known and _speaks_no_tls(err):
                self._scheme, self._is_known = "http", True
                return self._get(path, headers)
            raise self._unreachable(err) from err
        self._is_known = True
        return answer

    def _request(self, url: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 (urllib3's response)
        retries = _retries() if self._is_known else urllib3.Retry(connect=0, read=0, other=0, redirect=3)
        return self._http.request(
            "GET", url, headers=dict(headers), preload_content=False, decode_content=False, retries=retries
        )

    def _answer_challenge(self, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        fields = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
        if scheme.lower() == "basic" and self._auth.username:
            return _basic(self._auth)
        if scheme.lower() == "bearer" and fields.get("realm"):
            return f"Bearer {self._token(fields)}"
        raise self._denied()

    def _token(self, fields: Mapping[str, str]) -> str:
        query = {"service": fields.get("service", ""), "scope": f"repository:{self._name.path}:pull"}
        realm = fields["realm"]
        if not realm.startswith("https://") and not (realm.startswith("http://") and self._scheme == "http"):
            raise Denied(f"{self._name.familiar_name}: the registry sends credentials to {realm[:100]!r}")
        try:
            if self._auth.identity_token:
                form = {**query, "grant_type": "refresh_token", "client_id": "pyengine"}
                form["refresh_token"] = self._auth.identity_token
                answer = self._http.request_encode_body("POST", realm, fields=form, encode_multipart=False)
            else:
                headers = {"Authorization": _basic(self._auth)} if self._auth.username else {}
                answer = self._http.request("GET", realm, fields=query, headers=headers, retries=_retries())
        except HTTPError as err:
            raise self._unreachable(err) from err
        if answer.status != _OK or len(answer.data) > _TOKEN_MAX_BYTES:
            raise self._denied()
        try:
            token = msgspec.json.decode(answer.data, type=_Token)
        except msgspec.DecodeError as err:
            raise Unavailable(f"{realm}: not a token: {err}") from err
        return token.token or token.access_token

    def _refusal(self, answer: Any, target: str) -> EngineError:  # noqa: ANN401 (urllib3's response)
        text = _errors(answer.read(_TOKEN_MAX_BYTES))
        name = self._name.familiar_name
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
            return self._denied()
        if answer.status == _MISSING and target.startswith("sha256:"):
            return Unknown(f"{name}@{target} not found: {text or 'unknown'}")
        if answer.status == _MISSING:
            return Unknown(f"manifest for {name}:{target} not found: {text or 'manifest unknown'}")
        if answer.status == _TOO_MANY or answer.status >= _SERVER_ERROR:
            return Unavailable(f"registry {self._host} answers {answer.status}: {text or answer.reason}")
        return EngineError(f"registry {self._host} answers {answer.status}: {text or answer.reason}")

    def _denied(self) -> Denied:
        return Denied(
            f"pull access denied for {self._name.familiar_name}, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied"
        )

    def _unreachable(self, err: Exception) -> Unavailable:
        reason = err.reason if isinstance(err, MaxRetryError) and err.reason else err
        text = str(reason).partition(": ")[2] or str(reason)
        name = self._name.familiar_name
        return Unavailable(f"{name}: cannot reach registry {self._host}: {text.strip()}")


def _pool(host: str) -> Any:  # noqa: ANN401 (one of two classes of urllib3)
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or ""
    excluded = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    bare = host.partition(":")[0]
    if proxy and not _is_loopback(host) and bare not in [name.strip() for name in excluded]:
        return urllib3.ProxyManager(proxy, timeout=_TIMEOUT)
    return urllib3.PoolManager(timeout=_TIMEOUT)


def _retries() -> Any:  # noqa: ANN401 (urllib3's)
    # Authorization is not carried to another host: a blob's storage has its own in the address.
    return urllib3.Retry(total=3, connect=2, read=1, redirect=3, status=0, backoff_factor=0.3)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":[0-9]+\Z", host) else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _speaks_no_tls(err: HTTPError) -> bool:
    return isinstance(getattr(err, "reason", err), SSLError)


def _basic(auth: RegistryAuth) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()


def _errors(data: bytes) -> str:
    try:
        found = msgspec.json.decode(data, type=RegistryErrors).errors or ()
    except msgspec.DecodeError:
        return ""
    return "; ".join(f"{error.code.lower().replace('_', ' ')}: {error.message}" for error in found)[:500]
