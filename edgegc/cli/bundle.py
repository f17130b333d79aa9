"""``edgegc bundle``: the bundles of an uploaded cluster, and any bundle as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Common, Group, cluster_options, local_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message
    from edgegc.nebula.inspection import Inspected

VERSION = click.IntRange(min=1)


@click.group(cls=Group, example="edgegc bundle upload nebula.tar.gz --cluster field\nedgegc bundle list")
def bundle() -> None:
    """Uploaded bundles: what every node of a cluster of mode 'uploaded' runs."""


@bundle.command(example="edgegc bundle upload nebula.tar.gz --cluster field")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@cluster_options
@click.pass_obj
def upload(common: Common, file: Path) -> None:
    """Upload FILE, a tar.gz, and make it what all nodes of the cluster run.

    'tar --format=ustar -czf FILE config.yml ca.crt' makes one. host.crt and host.key are in it, too, where all nodes
    share them; without, every node uses its own.
    """
    from edgegc.cli.progress import bar
    from edgegc.cli.remote import ask, cluster_scope
    from edgegc.nebula.archive import DEFAULT_LIMITS

    size = file.stat().st_size
    if size > DEFAULT_LIMITS.body_bytes:
        raise Failure(f"{file} has {size} bytes, {DEFAULT_LIMITS.body_bytes} are allowed")
    body = file.read_bytes()

    async def question(client: Client) -> message.BundleView:
        cluster_id = await cluster_scope(client, common)
        with bar(common, "uploading", len(body), then="the server checks it") as sent:
            return await client.upload_bundle(body, cluster_id=cluster_id, sent=sent)

    _show(common, ask(common, question, doing=None))


@bundle.command("list", example="edgegc bundle list --cluster field")
@cluster_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the bundles that are kept, the newest first."""
    from edgegc.cli.output import Column, ago, emit_list, size
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> message.BundleList:
        return await client.bundles(cluster_id=await cluster_scope(client, common))

    found = ask(common, question)
    emit_list(
        common,
        found,
        (
            Column("VERSION", right=True),
            Column("ACTIVE"),
            Column("SIZE", right=True),
            Column("UPLOADED", right=True),
            Column("SHA-256", flexible=True, rank=1),
        ),
        [
            (
                each.version,
                "yes" if each.active else None,
                size(each.size),
                ago(each.uploaded_at),
                each.digest,
            )
            for each in found.bundles
        ],
        ids=(str(each.version) for each in found.bundles),
        empty="no bundles: 'edgegc bundle upload FILE' uploads one",
    )


@bundle.command(example="edgegc bundle download 7 field-7.tar.gz")
@click.argument("version", type=VERSION)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, writable=True), required=False)
@cluster_options
@click.pass_obj
def download(common: Common, version: int, file: Path | None) -> None:
    """Download a bundle into FILE (0600, for it may hold a private key). [default: bundle-VERSION.tar.gz]"""
    from edgegc.cli.output import emit_json, note, size
    from edgegc.cli.progress import bar
    from edgegc.cli.remote import ask, cluster_scope
    from edgegc.nebula.archive import DEFAULT_LIMITS
    from edgegc.nebula.bundle import digest
    from edgegc.nebula.files import write_atomic

    body = bytearray()

    async def question(client: Client) -> str:
        cluster_id = await cluster_scope(client, common)
        kept = (await client.bundles(cluster_id=cluster_id)).bundles
        total = next((each.size for each in kept if each.version == version), None)
        with bar(common, "downloading", total) as done:

            def take(piece: bytes) -> None:
                body.extend(piece)
                done(len(piece))

            limit = DEFAULT_LIMITS.body_bytes
            return await client.download_bundle(version, take, cluster_id=cluster_id, limit_bytes=limit)

    target = (file or Path(f"bundle-{version}.tar.gz")).absolute()
    announced = ask(common, question, doing=None)
    found = digest(bytes(body))
    if announced != f"sha256:{found}":
        raise Failure(f"the bundle was damaged on its way: its SHA-256 is {found}; nothing was written")
    write_atomic(target, bytes(body))
    if common.json:
        emit_json({"version": version, "file": str(target), "size": len(body), "digest": found})
    else:
        note(common, f"{target}: version {version}, {size(len(body))}")


@bundle.command(example="edgegc bundle activate 6")
@click.argument("version", type=VERSION)
@cluster_options
@click.pass_obj
def activate(common: Common, version: int) -> None:
    """Go back, or forward, to a bundle: its content becomes a new version."""
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> message.BundleView:
        return await client.activate_bundle(version, cluster_id=await cluster_scope(client, common))

    _show(common, ask(common, question))


@bundle.command(example="edgegc bundle delete 3")
@click.argument("version", type=VERSION)
@cluster_options
@click.pass_obj
def delete(common: Common, version: int) -> None:
    """Delete a bundle that is not active."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> None:
        await client.delete_bundle(version, cluster_id=await cluster_scope(client, common))

    ask(common, question)
    note(common, f"version {version} is deleted")


@bundle.command(example="edgegc bundle inspect nebula.tar.gz")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@local_options
@click.pass_obj
def inspect(common: Common, file: Path) -> None:
    """Say what FILE is, and whether it holds together: any bundle, uploaded or rendered, without a server.

    Archive, files, certificates and key are checked as a server and a node would. A signature is made for one node and
    comes beside the bundle: it can't be checked here.
    """
    import time

    from edgegc.errors import Error
    from edgegc.nebula.archive import DEFAULT_LIMITS
    from edgegc.nebula.inspection import inspect as look

    size = file.stat().st_size
    if size > DEFAULT_LIMITS.body_bytes:
        raise Failure(f"{file} has {size} bytes, {DEFAULT_LIMITS.body_bytes} are allowed")
    try:
        found = look(file.read_bytes(), at=int(time.time()))
    except Error as error:
        raise Failure(f"{file}: {error.message}", Exit.FAILED) from error
    _show_inspected(common, found)


def _show_inspected(common: Common, found: Inspected) -> None:
    from edgegc.cli.output import Column, emit_fields, emit_json, emit_table, size

    if common.json:
        emit_json(found)
        return
    if common.quiet:
        click.echo(found.digest)
        return
    fields: list[tuple[str, object]] = [
        ("kind", "rendered by edgegc" if found.mode == "managed" else "to be uploaded"),
        ("sha256", found.digest),
        ("size", size(found.size)),
    ]
    if found.mode == "managed":
        fields += [("cluster", found.cluster_id), ("node", found.node_id), ("version", found.version)]
    for each in found.authorities or ():
        fields.append(("authority", f"{each.name}, until {each.not_after.date()}"))
    if found.certificate is not None:
        own = found.certificate
        fields.append(
            ("certificate", f"{own.name} at {', '.join(own.addresses)}, until {own.not_after.date()}")
        )
    emit_fields(common, fields)
    click.echo()
    emit_table(
        common,
        (Column("FILE", flexible=True), Column("SIZE", right=True), Column("SHA-256", flexible=True, rank=1)),
        [(each.name, size(each.size), each.sha256) for each in found.files],
    )


def _show(common: Common, view: message.BundleView) -> None:
    from edgegc.cli.output import emit_object

    emit_object(common, view, quiet=str(view.version))
