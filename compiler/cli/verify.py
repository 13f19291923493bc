"""``tsfmc verify``."""

from __future__ import annotations

from pathlib import Path

import click

from .output import as_json, print_json, say, trust_key
from .paths import INPUT


@click.command()
@click.argument("artifact", type=INPUT)
@trust_key
@click.option(
    "--no-execute", is_flag=True, help="Files and signature alone: nothing of ARTIFACT is executed."
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, help="Threads of the self-test. Default: 1."
)
@as_json
def command(artifact: Path, trust: Path | None, no_execute: bool, threads: int, as_json: bool) -> None:
    """Check the hashes of ARTIFACT, its signature and its self-test; exit code 5 when one fails.

    First come the files, then the signature where --trust asks for it; nothing of ARTIFACT is executed until
    both hold.  The self-test then loads its program, which for some targets is native code.
    """
    from .. import api

    findings = api.verify(artifact, threads=threads, trust=trust, execute=not no_execute)
    if as_json:
        print_json({"artifact": str(artifact), "ok": True, "checks": findings})
        return
    for finding in findings:
        say(finding)
