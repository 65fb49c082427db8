"""URIs as text: one canonical spelling, the local path behind it, and what may be shown of it.

A plain path and its ``file://`` URI are the same place; ``file://`` URIs are percent-encoded, all others are kept as
their owner wrote them, because the key of an object store is whatever the text says. Nothing here touches a network;
only `local_path`, and a ``..`` in a path, look at the disk.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

from modelstore.errors import InvalidUriError

__all__ = [
    "basename",
    "is_local",
    "is_this_machine",
    "join",
    "local_path",
    "normalise",
    "redact",
    "redact_text",
    "refuse_secrets",
    "scheme",
    "split_chain",
]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAIN_HEAD: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://.*)?", re.DOTALL)
_CHAIN_LAST: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[/~.]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LOCAL_SCHEMES: Final = frozenset({"file", "local"})
# Only in these does a host follow the slashes; in s3:// or hf:// it is a bucket or an owner, where case may count.
_HOST_SCHEMES: Final = frozenset(
    {"dav", "davs", "ftp", "ftps", "hdfs", "http", "https", "scp", "sftp", "smb", "ssh", "webdav", "webdavs", "webhdfs"}
)
# github://owner:repo@branch and git://folder:repo@branch use the characters of a password for something else.
_NO_USERINFO: Final = frozenset({"git", "github", "memory", "modelstore"})
_ONE_SLASH: Final = re.compile(r"(s3|s3a|gs|gcs|az|abfs|azure|https?|s?ftps?|ssh|hf|memory):/[^/]", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"([?&;])([^=&;#?\s]+)=([^&#;\s]*)")
_SECRET_NAME: Final = re.compile(
    r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid|signature|sig"
    r"|[a-z_-]*token|api[-_]?key|key|password|passwd|pwd|secret",
    re.IGNORECASE,
)
_PASSWORD: Final = re.compile(
    r"(?<=://)[^\s/@:]*:[^\s/@]*@|(?<=https://)[^\s/@]+@|(?<=http://)[^\s/@]+@", re.IGNORECASE
)
# What pathlib.Path.as_uri leaves unquoted.
_PATH_SAFE: Final = "/~"


def normalise(uri: str | os.PathLike[str]) -> str:
    """Return the one spelling under which modelstore keeps ``uri``; normalising twice changes nothing.

    Args:
        uri: A URI, a chain of them (``zip://inner::s3://bucket/outer.zip``) or a path, which may be relative or
            begin with ``~``. A path becomes an absolute ``file://`` URI; symbolic links in it are kept, except
            those before a ``..``, which mean nothing without being followed.

    Raises:
        InvalidUriError: It is empty, holds control characters or text that no file name or URI can hold, names a
            file on another machine, or carries credentials.
    """
    text = os.fspath(uri) if isinstance(uri, os.PathLike) else uri
    if not isinstance(text, str):
        raise InvalidUriError(f"A URI must be a text or a path, not {type(uri).__name__}.")
    if not text.strip():
        raise InvalidUriError("A URI must not be empty.")
    if "\0" in text:
        raise InvalidUriError(f"A URI must not contain NUL: {redact(text)!r}.")
    if isinstance(uri, os.PathLike):
        return _path_uri(text)
    segments = split_chain(text)
    if len(segments) > 1:
        return "::".join([*(_normalise_segment(s) for s in segments[:-1]), normalise(segments[-1])])
    if _ONE_SLASH.match(text):
        raise InvalidUriError(f"{redact(text)!r} has one slash after its scheme.", "Write two: scheme://place/name.")
    if _SCHEME.match(text) or text[:6].lower() == "file:/":
        return _normalise_segment(text)
    return _path_uri(text)


def split_chain(uri: str) -> list[str]:
    """Return the links of a chained URI, outermost first; a URI or path that is no chain gives itself alone.

    Example:
        >>> split_chain("zip://a.pt::s3://bucket/b.zip"), split_chain("s3://bucket/a::b.pt")
        (['zip://a.pt', 's3://bucket/b.zip'], ['s3://bucket/a::b.pt'])
    """
    if "::" not in uri:
        return [uri]
    *heads, last = uri.split("::")
    chained = _CHAIN_LAST.match(last) and all(_CHAIN_HEAD.fullmatch(head) for head in heads)
    return [*heads, last] if chained else [uri]


def scheme(uri: str | os.PathLike[str]) -> str:
    """Return the lower-case scheme; ``file`` for a plain path, the outermost one for a chain.

    Example:
        >>> scheme("S3://bucket/key"), scheme("models/a.pt"), scheme("zip://a.pt::s3://bucket/a.zip")
        ('s3', 'file', 'zip')
    """
    text = os.fspath(uri)
    if isinstance(uri, os.PathLike):
        return "file"
    head = split_chain(text)[0]
    match = _SCHEME.match(head)
    if match:
        name = match[1].lower()
        return "file" if name in _LOCAL_SCHEMES else name
    return head.lower() if head != text else "file"


def is_local(uri: str | os.PathLike[str]) -> bool:
    """Tell whether ``uri`` is a path on this machine."""
    return scheme(uri) == "file"


def is_this_machine(place: str) -> bool:
    """Tell whether a host, with or without a port, names this machine as its own programs do: no name is looked up."""
    import ipaddress

    host = place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def local_path(uri: str | os.PathLike[str]) -> Path | None:
    """Return the path on this machine that ``uri`` stands for, or None if it stands for something else.

    ``file://`` URIs are percent-decoded. Many are written by hand without encoding, so when nothing exists at the
    decoded path but something does at the text as it stands, the latter is meant. The path need not exist.

    Raises:
        InvalidUriError: As `normalise` does.
    """
    if not is_local(uri):
        return None
    text = os.fspath(uri)
    decoded = Path(_decode(normalise(uri).removeprefix("file://")))
    if isinstance(uri, os.PathLike) or not _is_file_uri(text) or "%" not in text:
        return decoded
    raw = Path(_raw_file_path(text))
    return raw if raw != decoded and os.path.lexists(raw) and not os.path.lexists(decoded) else decoded


def basename(uri: str | os.PathLike[str]) -> str:
    """Return the last component of the path, decoded where the scheme encodes; empty if there is none.

    Bytes that are no UTF-8 come back as U+FFFD, so the result can always be stored and printed.

    Example:
        >>> basename("https://host/a/model%20v1.pt?download=1"), basename("s3://bucket/50%.bin"), basename("~/x.pt")
        ('model v1.pt', '50%.bin', 'x.pt')
    """
    if is_local(uri):
        return unquote(normalise(uri).rpartition("/")[2], errors="replace")
    # In zip://inner.pt::s3://bucket/outer.zip the inner name is the one; zip::s3://… has none but the outer one.
    links = split_chain(os.fspath(uri))
    link = next((one for one in links if "://" in one), links[-1])
    rest = link.partition("://")[2]
    if scheme(link) in {"http", "https"}:
        path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")[2]
        return unquote(path.rstrip("/").rpartition("/")[2], errors="replace")
    if scheme(link) == "modelstore":
        return unquote(rest.rstrip("/").rpartition("/")[2], errors="replace")
    return rest.rstrip("/").rpartition("/")[2]


def join(base: str | os.PathLike[str], *parts: str) -> str:
    """Return the normalised URI of ``parts`` below ``base``.

    Args:
        base: A folder: a path or a URI; the query of an ``http`` URI stays at the end.
        parts: Names below it, each possibly several components with ``/``, as they really are: they are
            percent-encoded for ``file://`` only.

    Raises:
        InvalidUriError: A part is empty, absolute or holds ``..``, or `normalise` refuses the base.
    """
    root = normalise(base)
    for part in parts:
        if not part or part.startswith("/") or ".." in part.split("/") or "\0" in part:
            raise InvalidUriError(f"{part!r} is no name below {redact(root)!r}.")
    names = "/".join(part.strip("/") for part in parts)
    if not names:
        return root
    if scheme(root) == "file":
        return f"{root.rstrip('/')}/{_encode(names)}"
    tail = ""
    if scheme(root) in {"http", "https"} and "?" in root:
        root, _, query = root.partition("?")
        tail = f"?{query}"
    return f"{root.rstrip('/')}/{names}{tail}"


def redact(uri: object) -> str:
    """Return ``uri`` fit for messages and logs: without user information and without signatures in its query.

    Example:
        >>> redact("https://me:pw@host/a?X-Amz-Signature=1f&part=2")
        'https://***@host/a?X-Amz-Signature=***&part=2'
    """
    text = os.fspath(uri) if isinstance(uri, os.PathLike) else str(uri)
    return "::".join(_PARAMETER.sub(_hidden, _redact_user(one)) for one in split_chain(str(text)))


def redact_text(text: object) -> str:
    """Return a message of somebody else fit to be shown: addresses in it lose passwords and signatures.

    Example:
        >>> redact_text("Cannot connect to proxy http://me:pw@proxy:3128, for https://host/a?sig=1f")
        'Cannot connect to proxy http://***@proxy:3128, for https://host/a?sig=***'
    """
    return _PARAMETER.sub(_hidden, _PASSWORD.sub("***@", str(text)))


def refuse_secrets(uri: str) -> str:
    """Return a normalised URI that may be written down; `normalise` has refused passwords, this refuses signatures.

    Raises:
        InvalidUriError: Its query holds a signature, a token or a key.
    """
    if any(_SECRET_NAME.fullmatch(unquote(match[2])) for match in _PARAMETER.finditer(uri)):
        raise InvalidUriError(
            f"The URI {redact(uri)!r} has a signature, a token or a key in its query.",
            "It would be stored and shown, and stop working one day. Register the address without it, or download the "
            "file (StorageManager.get_local_copy) and register that.",
        )
    return uri


def _hidden(parameter: re.Match[str]) -> str:
    secret = _SECRET_NAME.fullmatch(unquote(parameter[2]))
    return f"{parameter[1]}{parameter[2]}=***" if secret else parameter[0]


def _redact_user(link: str) -> str:
    match = _SCHEME.match(link)
    if not match or match[1].lower() in _NO_USERINFO:
        return link
    rest = link[match.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return f"{match[0]}***@{rest[authority.rindex('@') + 1 :]}"
    # user:p/w@host: the password holds a slash, so everything up to the last @ may be part of it.
    _, colon, port = authority.rpartition(":")
    if colon and not port.isdigit() and "@" in rest:
        return f"{match[0]}***@{rest[rest.rindex('@') + 1 :]}"
    return link


def _normalise_segment(text: str) -> str:
    if _is_file_uri(text):
        return _path_uri(_decode(_raw_file_path(text)))
    match = _SCHEME.match(text)
    if not match:
        return text.lower()
    if _CONTROL.search(text):
        raise InvalidUriError(f"A URI must not contain control characters: {redact(text)!r}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidUriError(f"A URI must be valid Unicode: {redact(text)!r}.") from error
    name, rest = match[1].lower(), text[match.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _refuse_credentials(name, authority, rest)
    if name in _HOST_SCHEMES:
        if not authority:
            raise InvalidUriError(f"{redact(text)!r} names no host.")
        user, at, host = authority.rpartition("@")
        rest = f"{user}{at}{host.lower()}{rest[len(authority) :]}"
    return f"{name}://{rest}"


def _refuse_credentials(name: str, authority: str, rest: str) -> None:
    if name in _NO_USERINFO:
        return
    user, at, host = authority.rpartition("@")
    _, colon, port = host.rpartition(":")
    hidden = bool(colon) and not port.isdigit() and "@" in rest[len(authority) :] and not port.endswith("]")
    # A user name alone is how sftp:// and abfs:// address things; in http it is a token.
    if (at and (":" in unquote(user) or name in {"http", "https"})) or hidden:
        raise InvalidUriError(
            f"The URI {redact(f'{name}://{rest}')!r} has credentials in it.",
            "Put them into the configuration or environment that the storage's own tools read, and leave them out "
            "of the URI: it is stored and shown.",
        )


def _is_file_uri(text: str) -> bool:
    match = _SCHEME.match(text)
    return text[:6].lower() == "file:/" if not match else match[1].lower() in _LOCAL_SCHEMES


def _raw_file_path(text: str) -> str:
    """Return the path part of a file URI, as it stands."""
    rest = text.partition(":")[2]
    if not rest.startswith("//"):
        return rest
    host, slash, path = rest[2:].partition("/")
    if host.lower() not in {"", "localhost"} or not slash:
        raise InvalidUriError(
            f"{text!r} is no file on this machine.",
            "A file URI has three slashes before an absolute path: file:///home/me/model.pt. Or give the plain path.",
        )
    return f"/{path}"


def _path_uri(text: str) -> str:
    path = os.path.expanduser(text) if text.startswith("~") else text
    path = os.path.join(os.getcwd(), path)
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        # link/.. is the parent of what the link points to: only following it gives the file that open() would give.
        last = len(parts) - parts[::-1].index("..")
        head = os.path.realpath("/" + "/".join(parts[:last]))
        parts = [*(part for part in head.split("/") if part), *parts[last:]]
    return f"file:///{_encode('/'.join(parts))}"


def _encode(path: str) -> str:
    try:
        return quote_from_bytes(os.fsencode(path), safe=_PATH_SAFE)
    except UnicodeEncodeError as error:
        raise InvalidUriError(f"{path!r} cannot be the name of a file.") from error


def _decode(quoted: str) -> str:
    try:
        decoded = os.fsdecode(unquote_to_bytes(quoted))
    except UnicodeEncodeError as error:
        raise InvalidUriError(f"{quoted!r} is no valid file URI.") from error
    if "\0" in decoded:
        raise InvalidUriError(f"A URI must not contain NUL: {quoted!r}.")
    return decoded
