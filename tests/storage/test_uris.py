"""URIs: one spelling each, the right file behind them, and never a secret shown."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstore.errors import InvalidUriError
from modelstore.storage.uris import basename, is_local, join, local_path, normalise, redact, scheme, split_chain

# Whatever a file may be called on this filesystem: bytes that are no UTF-8 come as surrogate escapes.
PART = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).filter(lambda b: b"/" not in b and b"\0" not in b).map(os.fsdecode),
    st.sampled_from(["a b", "50%", "%41", "a#b", "a?b", "é", "🤗", "a::b", "~", "zip:", "s3:", "*", "[x]"]),
).filter(lambda part: part not in {".", ".."})
PATH = st.lists(PART, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
HOST = st.from_regex(r"[A-Za-z][A-Za-z0-9.-]{0,10}", fullmatch=True)
KEY = st.text(st.characters(min_codepoint=33, exclude_characters="@:\x7f", exclude_categories=["Cs"]), max_size=20)
REMOTE = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["s3", "S3", "gs", "https", "HTTP", "sftp", "memory", "hf", "odd+1"]),
    HOST,
    KEY,
)


@given(PATH)
@example("/data/%41")  # looks encoded, is not
@example("/x//..//y")
def test_any_path_comes_back_from_its_uri(path: str) -> None:
    """What is stored is the URI; the file must be found again from it, whatever it is called."""
    uri = normalise(path)

    assert uri.startswith("file:///")
    assert uri.isascii()
    assert local_path(uri) == Path(os.path.normpath(path))


@given(st.one_of(PATH, REMOTE, PATH.map(lambda path: f"file://{quote(os.fsencode(path))}")))
@example("~/model.pt")
@example("zip://a b.pt::/data/x y.zip")
@example("file:///a%2520b/")
def test_normalising_twice_changes_nothing(uri: str) -> None:
    """The stored form is compared with the normalised form of what users type."""
    once = normalise(uri)

    assert normalise(once) == once
    assert scheme(once) == scheme(uri)


@given(PATH)
def test_agrees_with_pathlib_about_file_uris(path: str) -> None:
    """Other programs make URIs of paths, too; these must be the same."""
    assert normalise(Path(path)) == Path(path).as_uri()


@pytest.mark.parametrize(
    ("given_uri", "expected"),
    [
        ("/a/b", "file:///a/b"),
        ("/a//b/./c/", "file:///a/b/c"),
        ("//a", "file:///a"),
        ("FILE://localhost/a%20b", "file:///a%20b"),
        ("file:/a", "file:///a"),
        ("file:///a b", "file:///a%20b"),
        ("file:///100%.bin", "file:///100%25.bin"),
        ("S3://Bucket/Key%20", "s3://Bucket/Key%20"),
        ("HTTPS://Example.ORG:8443/A?B=c#d", "https://example.org:8443/A?B=c#d"),
        ("sftp://Me@Host/a", "sftp://Me@host/a"),
        ("s3://minio:9000/bucket/key", "s3://minio:9000/bucket/key"),
        ("ZIP://In.pt::S3://b/o.zip", "zip://In.pt::s3://b/o.zip"),
        ("zip://a::/data/x y.zip", "zip://a::file:///data/x%20y.zip"),
        ("github://org:repo@main/a", "github://org:repo@main/a"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
    ],
)
def test_spellings_of_one_place_become_one(given_uri: str, expected: str) -> None:
    """Looking up a model by its URI must not depend on how it was typed."""
    assert normalise(given_uri) == expected


def test_relative_and_home_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory and HOME of whoever reads it later are others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")

    assert normalise("a/b.pt") == (tmp_path / "a/b.pt").as_uri()
    assert normalise("~/b.pt") == "file:///home/me/b.pt"
    assert normalise("./~") == (tmp_path / "~").as_uri()


def test_links_are_kept_except_below_a_parent_step(tmp_path: Path) -> None:
    """`link/..` is the parent of the link's target, as open() sees it; a link alone stays what the user chose."""
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/deep")
    (tmp_path / "real/x").write_bytes(b"x")

    assert normalise(tmp_path / "link" / "y") == (tmp_path / "link/y").as_uri()
    assert local_path(f"{tmp_path}/link/../x") == tmp_path / "real/x"


def test_a_file_uri_written_without_encoding_finds_its_file(tmp_path: Path) -> None:
    """Many are made by gluing "file://" and a path together."""
    raw = tmp_path / "a%20b"
    raw.write_bytes(b"raw")

    assert local_path(f"file://{raw}") == raw
    assert local_path(normalise(raw)) == raw

    (tmp_path / "a b").write_bytes(b"decoded")

    assert local_path(f"file://{raw}") == tmp_path / "a b"


@pytest.mark.parametrize(
    "uri",
    ["", "  ", "a\0b", "file:///a%00b", "s3://b/a\nb", "s3://b/\ud800", "/a/\ud800", "http:///x", "file://host/x",
     "file://x", "s3:/bucket/key", "https:/host/x"],
)  # fmt: skip
def test_what_names_nothing_is_refused(uri: str) -> None:
    """Found at once, with the URI in the message, and not as a missing file later."""
    with pytest.raises(InvalidUriError):
        normalise(uri)


def test_only_texts_and_paths_are_uris() -> None:
    """A tensor or None in its place is a mistake of the caller's."""
    with pytest.raises(InvalidUriError, match="not NoneType"):
        normalise(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:s3cret@host/x", "https://s3cret@host/x", "s3://AKIA:s3cret@bucket/x", "sftp://me:s3cret@host/x",
        "https://me:s3c/s3cret@host/x", "ftp://me:%73s3cret@host", "zip://a::https://me:s3cret@host/x.zip",
        "https://me%3As3cret@host/x", "HTTPS://me:s3cret@HOST",
    ],
)  # fmt: skip
def test_credentials_are_refused_and_not_repeated(uri: str) -> None:
    """A URI is stored, shown, logged and synchronised."""
    with pytest.raises(InvalidUriError) as caught:
        normalise(uri)

    assert "s3cret" not in str(caught.value)
    assert "credentials" in str(caught.value)
    assert "s3cret" not in redact(uri)


def test_redacting_hides_signatures_and_keeps_the_rest() -> None:
    """Signed addresses are accepted, but what signs them is a secret while it lasts."""
    uri = "https://host/a?X-Amz-Signature=abc&part=2&X-Amz-Security-Token=def&sig=ghi#top"

    assert redact(uri) == "https://host/a?X-Amz-Signature=***&part=2&X-Amz-Security-Token=***&sig=***#top"
    assert redact("s3://bucket/a@b/key=1") == "s3://bucket/a@b/key=1"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/a/b c.pt", "b c.pt"), ("file:///a/b%20c.pt", "b c.pt"), ("s3://b/k/50%.bin", "50%.bin"), ("s3://b", "b"),
        ("https://h/a/b%20c.pt?x=/y", "b c.pt"), ("https://h", ""), ("zip://in/a.pt::s3://b/o.zip", "a.pt"),
        ("modelstore://sha256/00/a%20b", "a b"), ("file:///a/%FF", "\ufffd"),
    ],
)  # fmt: skip
def test_basename_is_what_the_file_would_be_called(uri: str, name: str) -> None:
    """Local copies keep it, so that a framework sees the right suffix."""
    assert basename(uri) == name


def test_join_quotes_for_files_only() -> None:
    """The key of an object store is the text itself."""
    assert join("/a b", "c d", "e%") == "file:///a%20b/c%20d/e%25"
    assert join("s3://bucket/", "c d") == "s3://bucket/c d"
    assert join("https://h/a?sig=1", "b") == "https://h/a/b?sig=1"


@pytest.mark.parametrize("part", ["", "/a", "../a", "a/../b", "a\0"])
def test_join_never_leaves_its_base(part: str) -> None:
    """File names come from strangers' models."""
    with pytest.raises(InvalidUriError):
        join("/a", part)


def test_chains_are_told_from_colons() -> None:
    """Two colons are allowed in a key or a file name."""
    assert split_chain("zip://a::s3://b/c") == ["zip://a", "s3://b/c"]
    assert split_chain("s3://b/a::b.pt") == ["s3://b/a::b.pt"]
    assert split_chain("/data/a::b") == ["/data/a::b"]
    assert is_local("/data/a::b")
    assert not is_local("zip://a::/data/b.zip")
