"""``edgegc audit``: who did what."""

from __future__ import annotations

import click

from edgegc.cli.options import Command, Common, remote_options


@click.command(
    cls=Command,
    example="edgegc audit\nedgegc audit --page-size 500 -o json | jq '.audit[] | select(.action == \"node.delete\")'",
)
@click.option("--page-size", type=int, default=50, show_default=True, help="Entries on a page, at most 500.")
@click.option("--cursor", metavar="CURSOR", help="The next_cursor of the page before.")
@remote_options
@click.pass_obj
def audit(common: Common, page_size: int, cursor: str | None) -> None:
    """Show who did what, newest first: every write, and who was refused.

    Alike refusals of a minute are one entry, with their number. Entries are kept for 400 days, 100,000 of them at most.
    """
    from edgegc.cli.output import Column, emit_list, note
    from edgegc.cli.remote import ask

    page = ask(common, lambda client: client.audit(cursor=cursor, page_size=page_size))
    emit_list(
        common,
        page,
        (
            Column("AT (UTC)"),
            Column("WHAT"),
            Column("TARGET", flexible=True),
            Column("WHO", flexible=True, rank=1),
            Column("FROM", flexible=True, rank=2),
            Column("REQUEST", flexible=True, rank=3),
        ),
        [
            (each.at, each.action, each.target, each.actor, each.source, each.request_id)
            for each in page.audit
        ],
        ids=(str(each.id) for each in page.audit),
        empty="nothing was changed yet",
    )
    if page.next_cursor is not None:
        note(common, f"there is more: --cursor {page.next_cursor}")
