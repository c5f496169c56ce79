"""What is fetched is the file that was published, or nothing at all lies there."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from server import Site, site

from laconic.device_sim.datasets import cmapss, har, mnist
from laconic.device_sim.datasets.archive import member
from laconic.device_sim.datasets.fetching import fetch
from laconic.device_sim.scenario.examples import dataset_of
from laconic.device_sim.scenario.settings import DataSection
from laconic.errors import ConfigError, TransportError


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(autouse=True)
def straight(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between a test and its own server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_file_comes_whole_and_under_its_name(hub: Site, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    there = fetch(hub.publish("numbers", content), tmp_path / "new", context=hub.trust)
    assert there == tmp_path / "new" / "numbers"
    assert there.read_bytes() == content
    assert [p.name for p in there.parent.iterdir()] == ["numbers"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size_bytes": 999}, "allowed 999"),
        ({"name": "none/x"}, "cannot write"),
    ],
)
def test_another_file_than_was_published_is_refused(
    hub: Site, tmp_path: Path, wrong: dict, told: str
) -> None:
    file = replace(hub.publish("a", bytes(2000)), **wrong)
    with pytest.raises(ConfigError, match=told):
        fetch(file, tmp_path, context=hub.trust)
    assert not list(tmp_path.iterdir())


def test_a_file_that_ends_too_soon_is_refused(hub: Site, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="ended after 10 bytes"):
        fetch(replace(hub.publish("short", bytes(10)), size_bytes=11), tmp_path, context=hub.trust)


def test_who_is_not_to_be_trusted_is_not_asked(hub: Site, tmp_path: Path) -> None:
    asked = len(hub.asked)
    with pytest.raises(TransportError, match="certificate"):
        fetch(hub.publish("a", b"a"), tmp_path)
    assert len(hub.asked) == asked


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a", "file:///etc/hosts", "ftp://127.0.0.1/a"])
def test_an_address_without_tls_is_refused_also_as_a_way_on(hub: Site, tmp_path: Path, url: str) -> None:
    file = hub.publish("moved", b"a")
    with pytest.raises(ConfigError, match="https"):
        fetch(replace(file, url=url), tmp_path, context=hub.trust)
    hub.pages["/moved"] = url
    # The library itself goes to few kinds of addresses, of which this leaves one.
    with pytest.raises((ConfigError, TransportError), match=r"https://|not allowed"):
        fetch(file, tmp_path, context=hub.trust)


def test_a_way_on_with_tls_is_followed(hub: Site, tmp_path: Path) -> None:
    file = hub.publish("old", b"abc")
    hub.pages["/new"], hub.pages["/old"] = b"abc", hub.url("new")
    assert fetch(file, tmp_path, context=hub.trust).read_bytes() == b"abc"


def test_one_that_takes_too_long_is_given_up(hub: Site, tmp_path: Path) -> None:
    file = hub.publish("slow", bytes(100_000))
    hub.pause_s = 0.02
    try:
        with pytest.raises(TransportError, match=r"slow.*SHA-256"):
            fetch(file, tmp_path, context=hub.trust, within_s=0.2)
    finally:
        hub.pause_s = 0.0


def test_the_error_says_what_to_do_by_hand(hub: Site, tmp_path: Path) -> None:
    file = replace(hub.publish("a", b"a"), url=hub.url("nowhere"))
    with pytest.raises(TransportError) as refused:
        fetch(file, tmp_path, context=hub.trust)
    assert file.sha256 in str(refused.value)
    assert "404" in str(refused.value)
    assert f"into {tmp_path}, or say where it is with --set data.path=FOLDER" in str(refused.value)


@pytest.mark.parametrize("source", ["mnist", "cmapss", "har"])
def test_where_a_file_was_looked_for_is_said_whatever_the_path_is_relative_to(
    source: str, tmp_path: Path
) -> None:
    settings = DataSection(source=source, path="there/../here")
    with pytest.raises(ConfigError) as refused:
        dataset_of(settings, tmp_path)
    assert f"in {tmp_path / 'here'}; get" in str(refused.value)
    assert f"into {tmp_path / 'here'}, or say where it is" in str(refused.value)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_only_what_lacks_is_taken_out_of_an_archive(hub: Site, tmp_path: Path) -> None:
    names = [f"{kind}_FD001.txt" for kind in ("train", "test", "RUL")]
    source = hub.publish("C.zip", zipped({name: name.encode() for name in names}))
    (tmp_path / names[0]).write_text("mine")
    cmapss.fetch_lacking(tmp_path, "FD001", source, context=hub.trust)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / names[0]).read_text() == "mine"
    asked = len(hub.asked)
    cmapss.fetch_lacking(tmp_path, "FD001", source, context=hub.trust)
    assert len(hub.asked) == asked


def test_an_archive_in_an_archive_becomes_a_folder(hub: Site, tmp_path: Path) -> None:
    inner = {name: b"1\n" for part in ("train", "test") for name in har._names(part)}
    source = hub.publish("h.zip", zipped({"UCI HAR Dataset.zip": zipped(inner)}))
    har.fetch_lacking(tmp_path, source, context=hub.trust)
    assert len(har.files(tmp_path)) == 16
    assert not list(tmp_path.glob("*.zip"))


def test_the_four_files_are_asked_for_once(hub: Site, tmp_path: Path) -> None:
    files = [hub.publish(f.name, f.name.encode()) for f in mnist.FILES]
    mnist.fetch_lacking(tmp_path, files, context=hub.trust)
    (tmp_path / files[0].name).unlink()
    before = len(hub.asked)
    mnist.fetch_lacking(tmp_path, files, context=hub.trust)
    assert hub.asked[before:] == [f"/{files[0].name}"]


def test_a_member_that_swells_is_refused() -> None:
    with pytest.raises(ConfigError, match="over 1000"):
        member(zipped({"a": bytes(10**6)}), "a", limit_bytes=1000)
    with pytest.raises(ConfigError, match="cannot take b"):
        member(zipped({"a": b""}), "b", limit_bytes=1000)
    with pytest.raises(ConfigError, match="cannot take a"):
        member(zipped({"a": bytes(1000)})[:-40], "a", limit_bytes=1000)
