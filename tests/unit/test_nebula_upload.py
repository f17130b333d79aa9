"""What an uploaded archive must be: a zoo of those that are not, each with its own sentence, and noise."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.errors import Error, Invalid, UnsupportedMedia
from edgegc.nebula import upload
from tests import zoo
from tests.fuzz import THOUSANDS, mutated

MIB = 1024 * 1024
MOST_BYTES = 24 * MIB
"""Of Python's memory while one is looked through: its largest file, the same while it is joined, and YAML's."""
CHECKED = [name for name, (_, status, _) in zoo.ZOO.items() if status != 413]


def check(body: bytes) -> dict[str, bytes]:
    return upload.check(io.BytesIO(body).read)


@pytest.mark.parametrize("name", CHECKED)
def test_each_of_the_zoo_is_refused_with_its_own_sentence_in_little_memory(name: str) -> None:
    make, status, words = zoo.ZOO[name]
    body = make()
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedMedia if status == 415 else Invalid) as refused:
            check(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words in refused.value.message
    assert peak < MOST_BYTES


def test_no_two_animals_share_a_body() -> None:
    assert len({make() for make, _, _ in zoo.ZOO.values()}) == len(zoo.ZOO) >= 25


def test_a_good_bundle_gives_what_nodes_use_and_nothing_else() -> None:
    files = zoo.GOOD | {"host.crt": zoo.CA, "host.key": zoo.KEY}
    assert check(zoo.bundle(files | {"notes/README": b"x" * MIB})) == files
    assert check(zoo.sized(9 * MIB)) == zoo.GOOD


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_archives_of_common_tools_are_taken(layout: int) -> None:
    directory = tarfile.TarInfo("./")
    directory.type = tarfile.DIRTYPE
    members = [(directory, b""), *(zoo.file(f"./{name}", content) for name, content in zoo.GOOD.items())]
    assert check(gzip.compress(zoo.tar(members, layout=layout))) == zoo.GOOD


def test_a_node_makes_the_manifest_itself_and_leaves_open_what_a_rendered_one_says() -> None:
    read = upload.read(zoo.bundle(), cluster_id="c", node_id="n", version=7)
    assert set(read.files) == {"manifest.json", *zoo.GOOD}
    assert (read.manifest.cluster_id, read.manifest.node_id, read.manifest.version) == ("c", "n", 7)
    assert (read.manifest.signers, read.manifest.servers, read.manifest.listen_port) == ((), (), None)


@THOUSANDS
@given(st.binary(max_size=4000), st.sampled_from([b"", zoo.bundle()[:200], b"\x1f\x8b\x08\0"]))
def test_noise_is_refused_by_an_error_of_ours(noise: bytes, begin: bytes) -> None:
    with pytest.raises(Error):
        check(begin + noise)


WHOLE = {**zoo.GOOD, "host.crt": zoo.CA, "host.key": zoo.KEY}
RAW = [zoo.tar([zoo.file(*each) for each in files.items()])[:5120] for files in (zoo.GOOD, WHOLE)]


@THOUSANDS
@given(mutated(zoo.bundle(), zoo.bundle(WHOLE)))
def test_a_bundle_with_changed_bytes_is_refused_or_what_it_was(body: bytes) -> None:
    with contextlib.suppress(Error):
        assert check(body) in (zoo.GOOD, WHOLE)


@THOUSANDS
@given(mutated(*RAW), st.booleans())
def test_a_bundle_with_changed_bytes_inside_is_refused_or_holds_what_nodes_need(
    raw: bytes, mend: bool
) -> None:
    body = gzip.compress(zoo.mended(raw) if mend else raw, 1)
    with contextlib.suppress(Error):
        assert {"config.yml", "ca.crt"} <= set(check(body))


CONFIGS = (
    zoo.CONFIG,
    b"pki: {ca: ca.crt, cert: host.crt}\nlighthouse:\n  hosts: ['10.42.0.1']\n  interval: 60\n"
    b'static_host_map:\n  "10.42.0.1": &here ["203.0.113.9:4242"]\nlisten: !!map {port: 0x10}\n'
    b"firewall:\n  outbound:\n    - {port: any, proto: any, host: any}\n  inbound: *here\n",
)


@THOUSANDS
@given(mutated(*CONFIGS) | st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_configuration_is_taken_or_refused_by_name(config: bytes) -> None:
    said = None
    try:
        check(zoo.with_files(config_yml=config))
    except Invalid as error:
        said = error.message
    assert said is None or said.startswith("the bundle's config.yml ")
