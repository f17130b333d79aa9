"""``edgegc quickstart``: an empty directory becomes a control plane with a cluster, a lighthouse and a key, and serves.

Everything it makes goes through the API, as any operator would do it. Its plan lies in the data directory until all
of it is done, so that a run that was killed half-way is completed by the next one. Knows nothing of the store.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.joining import default_source, is_wildcard, join_command, target_of, url_of
from edgegc.cli.options import Command, Common, data_dir_option, default_data_dir, local_options
from edgegc.cli.serve import run, server_flags, server_options
from edgegc.errors import Invalid
from edgegc.nebula.files import remove_durably, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.client import Client
    from edgegc.settings import Settings

PLAN_FILE: Final = "quickstart.json"
TOKEN_FILE: Final = "operator.token"  # noqa: S105  a name, not a secret
DATABASE_FILE: Final = "edgegc.db"
ACCESS_LOGGER: Final = "edgegc.api.access"
LABEL: Final = "quickstart"
KEY_LIFETIME_S: Final = 86_400
DEFAULT_NAME: Final = "home"
DEFAULT_NETWORK: Final = "10.42.0.0/16"
DEFAULT_LISTEN: Final = "0.0.0.0:8443"
DEFAULT_UDP_PORT: Final = 4242
LIGHTHOUSE_WAIT_S: Final = 5.0
"""Starting a lighthouse takes a fraction of a second; after this something is wrong that the operator should read."""
HEADING: Final = (
    "# Written by edgegc quickstart. 'edgegc settings show' lists every setting and its source.\n\n"
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be made; written before anything is, removed when all of it is there."""

    name: str
    network_cidr: str
    public: str
    listen: tuple[str, ...]
    public_url: str | None


@click.command(cls=Command, example="edgegc quickstart --public 203.0.113.9:4242")
@click.option("--name", metavar="NAME", help=f"Of the tenant and the cluster. [default: {DEFAULT_NAME}]")
@click.option("--network-cidr", metavar="CIDR", help=f"The overlay's range. [default: {DEFAULT_NETWORK}]")
@click.option(
    "--listen",
    multiple=True,
    metavar="HOST:PORT",
    help=f"Where to listen, with TLS. [default: {DEFAULT_LISTEN}]",
)
@click.option(
    "--public",
    metavar="ADDR:PORT",
    help=f"The lighthouse's UDP address. [default: the default route's source address, {DEFAULT_UDP_PORT}]",
)
@click.option(
    "--public-url", metavar="URL", help="Where nodes reach the API. [default: https://ADDR and the port]"
)
@server_options
@data_dir_option
@local_options
@click.pass_obj
def quickstart(
    common: Common,
    /,
    config: Path | None,
    name: str | None,
    network_cidr: str | None,
    listen: tuple[str, ...],
    public: str | None,
    public_url: str | None,
    **given: Any,
) -> None:
    """Make this machine a control plane, print the command that makes another one a node, and serve.

    On a directory that is in use already it only serves.
    """
    from edgegc.cli.output import note
    from edgegc.settings_source import FILE_NAME, load

    flags = server_flags(common, given)
    if listen:
        flags["api.listen"] = listen
    if public_url is not None:
        flags["api.public_urls"] = (public_url,)

    def settings() -> Settings:
        return load(config, flags, os.environ, default_data_dir=default_data_dir()).settings

    # Only for the directory: the settings in force are those of the file that is written below.
    directory = load(
        config, {"data.dir": common.given_data_dir}, os.environ, default_data_dir=default_data_dir()
    ).settings.data.dir
    begun = _read_plan(directory)
    if begun is None and (directory / DATABASE_FILE).exists():
        note(
            common,
            f"{directory} is in use already, so it is only served; "
            "'edgegc key create --show-join' prints the command that makes a machine a node",
        )
        run(settings)
        return
    # A run that was stopped half-way is completed; what is said this time counts more than what was said then.
    plan = Plan(
        name=_checked_name(name or (begun.name if begun else DEFAULT_NAME)),
        network_cidr=_checked_network(network_cidr or (begun.network_cidr if begun else DEFAULT_NETWORK)),
        public=_public_address(public) if public or not begun else begun.public,
        listen=listen or (begun.listen if begun else (DEFAULT_LISTEN,)),
        public_url=public_url or (begun.public_url if begun else None),
    )
    own_file = _settings_file(plan)
    # Read once before anything is written: what is refused must not be what the next run remembers.
    load(config, {**_plan_settings(plan), **flags}, os.environ, default_data_dir=default_data_dir())
    # The lighthouses' user passes through the directory; what it may not read says so itself.
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    write_atomic(directory / PLAN_FILE, msgspec.json.encode(plan))
    if config is None and _is_ours(directory / FILE_NAME):
        write_atomic(directory / FILE_NAME, own_file)

    async def set_up(in_force: Settings) -> None:
        # What is asked here is our own doing; the operator's first screen is for the answer.
        access = logging.getLogger(ACCESS_LOGGER)
        level = access.level
        access.setLevel(logging.WARNING)
        try:
            await _set_up(common, in_force, plan)
        finally:
            access.setLevel(level)

    run(settings, beside=set_up)


async def _set_up(common: Common, settings: Settings, plan: Plan) -> None:
    """Make what is not there yet, and print how to join. Every step may be repeated."""
    import trio

    from edgegc.cli.output import emit_json
    from edgegc.cli.remote import ADMIN_SOCKET
    from edgegc.client import Client
    from edgegc.model import message

    directory = settings.data.dir
    target = target_of(settings)
    async with Client(f"unix://{directory.absolute() / ADMIN_SOCKET}") as client:
        cluster_id = await _cluster(client, plan)
        token_file = directory / TOKEN_FILE
        if not token_file.exists():
            await _make_token(client, token_file)
        made = await client.create_enrolment_key(
            message.EnrolmentKeyCreate(uses=None, expires_in_s=KEY_LIFETIME_S, label=LABEL),
            cluster_id=cluster_id,
        )
        command = join_command(target, str(made.key))
        if common.json:
            emit_json(
                {
                    "url": target.url,
                    "key": made.key,
                    "pin": target.pin,
                    "join": command,
                    "cluster_id": cluster_id,
                    "operator_token_file": str(token_file),
                }
            )
        else:
            if not common.quiet:
                click.echo("On each machine that is to be a node (the key is good for 24 hours):\n")
            click.echo(command)
            if not common.quiet:
                click.echo(f"\nThe operator token is in {token_file}")
        await trio.to_thread.run_sync(remove_durably, directory / PLAN_FILE)
        await _say_if_no_lighthouse(client, cluster_id)


async def _cluster(client: Client, plan: Plan) -> str:
    """Return the id of the plan's cluster, made if it is not there."""
    from edgegc.model import message

    tenants = [each for each in (await client.tenants()).tenants if each.name == plan.name]
    tenant = tenants[0] if tenants else await client.create_tenant(message.TenantCreate(name=plan.name))
    for each in (await client.clusters()).clusters:
        if each.name == plan.name and each.tenant_id == tenant.id:
            return each.id
    made = await client.create_cluster(
        message.ClusterCreate(
            tenant_id=tenant.id,
            name=plan.name,
            network_cidr=plan.network_cidr,
            provide_lighthouse=True,
            lighthouse_port=int(plan.public.rpartition(":")[2]),
            lighthouse_public_addresses=(plan.public,),
        )
    )
    return made.id


async def _make_token(client: Client, path: Path) -> None:
    """Write a new operator token to ``path``; one that an earlier run made and could not write is revoked."""
    import trio

    from edgegc.model import message

    for each in (await client.api_tokens()).api_tokens:
        if each.label == LABEL:
            await client.revoke_api_token(each.id)
    made = await client.create_api_token(message.ApiTokenCreate(scopes=("operator",), label=LABEL))
    await trio.to_thread.run_sync(write_atomic, path, f"{made.token}\n".encode("ascii"))


async def _say_if_no_lighthouse(client: Client, cluster_id: str) -> None:
    import trio

    deadline = trio.current_time() + LIGHTHOUSE_WAIT_S
    while True:
        found = [each for each in (await client.lighthouses()).lighthouses if each.cluster_id == cluster_id]
        if found and found[0].state == "running":
            return
        if trio.current_time() >= deadline:
            break
        await trio.sleep(0.1)
    state, why = (found[0].state, found[0].last_error) if found else ("not there", None)
    if why is None:
        health = await client.health()
        why = health.checks.get("lighthouses", "'edgegc status' and the log say more")
    click.echo(f"edgegc: the lighthouse is {state}: {why}", err=True)


def _public_address(given: str | None) -> str:
    """Return ``ip:port`` under which nodes will reach the lighthouse."""
    from edgegc.settings_source import split_address

    if given is None:
        source = default_source()
        if source is None:
            raise Failure(
                "this machine has no default route to tell its address by: "
                "give --public ADDR:PORT, where nodes will reach its lighthouse",
                Exit.USAGE,
            )
        return f"{source}:{DEFAULT_UDP_PORT}"
    host, port = split_address(given if ":" in given else f"{given}:{DEFAULT_UDP_PORT}", key="--public")
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise click.UsageError(f"--public: {host!r} is not an IPv4 address") from None
    if address.is_unspecified or address.is_loopback or address.is_multicast or port == 0:
        raise click.UsageError(f"--public: no node can reach {given}")
    return f"{address}:{port}"


def _checked_name(text: str) -> str:
    from edgegc.model.message import TenantCreate

    try:
        return msgspec.convert({"name": text}, TenantCreate).name
    except msgspec.ValidationError:
        raise click.UsageError(
            f"--name: {text!r} is not a name: letters, digits, and '.', '_', '-' between them; at most 63"
        ) from None


def _checked_network(text: str) -> str:
    """Ask the rule that the API will ask."""
    from edgegc.control.addresses import overlay_network

    try:
        return str(overlay_network(text))
    except Invalid as error:
        raise click.UsageError(f"--{error.message.replace('_', '-', 1)}") from None


def _settings_file(plan: Plan) -> bytes:
    """Return the settings that the plan needs, so that ``edgegc serve`` alone does the same from now on."""
    import tomli_w

    document: dict[str, dict[str, object]] = {}
    for key, value in _plan_settings(plan).items():
        section, _, name = key.partition(".")
        document.setdefault(section, {})[name] = list(value) if isinstance(value, tuple) else value
    return (HEADING + tomli_w.dumps(document)).encode()


def _plan_settings(plan: Plan) -> dict[str, object]:
    from edgegc.settings_source import split_address

    url = plan.public_url
    if url is None:
        host, port = split_address(plan.listen[0], key="--listen")
        if port == 0:
            raise click.UsageError("--listen needs a port: nodes are told it once, and keep it")
        url = url_of(plan.public.rpartition(":")[0] if is_wildcard(host) else host, port, tls=True)
    return {"api.listen": plan.listen, "api.public_urls": (url,), "tls.mode": "self-signed"}


def _is_ours(path: Path) -> bool:
    """Return whether the settings file is quickstart's to write: not there, or written by it."""
    try:
        return path.read_text(encoding="utf-8").startswith(HEADING)
    except FileNotFoundError:
        return True


def _read_plan(directory: Path) -> Plan | None:
    path = directory / PLAN_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Failure(
            f"{path} is not what quickstart wrote ({error}); remove it to serve what is there"
        ) from None
