"""``tsfmc push``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, print_json, say
from .paths import INPUT


@click.command()
@click.argument("artifact", type=INPUT)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--endpoint", metavar="URL", help="Another hub.  Default: HF_ENDPOINT, or huggingface.co.")
@click.option("--private", is_flag=True, help="Make a private repository.")
@click.option("--dry-run", is_flag=True, help="Check everything and list the files; upload nothing.")
@as_json
def command(
    artifact: Path, repo: str, endpoint: str | None, private: bool, dry_run: bool, as_json: bool
) -> None:
    """Upload ARTIFACT and its model card to the Hugging Face hub, in one commit.

    What verify refuses is not uploaded, nor published what the teacher's licence does not let one share: exit
    codes 5 and 6.  The token is that of HF_TOKEN or of the stored login (hf auth login).
    """
    from .. import api

    pushed = api.push(artifact, repo, endpoint=endpoint, private=private, dry_run=dry_run)
    if as_json:
        print_json({"repo": pushed.repo, "files": pushed.files, "checks": pushed.findings, "url": pushed.url})
        return
    for finding in pushed.findings:
        say(finding, err=True)
    if pushed.url is None:
        for name, size in pushed.files.items():
            say(f"{size:>12,}  {name}")
    say(pushed.url or f"nothing uploaded: {len(pushed.files)} files would go to {repo}", err=not pushed.url)
