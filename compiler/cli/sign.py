"""``tsfmc sign``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .output import as_json, print_json, say
from .paths import INPUT


@click.command()
@click.argument("artifact", type=INPUT)
@click.option("--key", type=INPUT, required=True, help="Private key (PEM): P-256, P-384 or P-521.")
@as_json
def command(artifact: Path, key: Path, as_json: bool) -> None:
    """Sign ARTIFACT, a directory or a .tsfmc file: model.sig in the OpenSSF Model Signing format.

    Everything in it is signed, the manifest with its accuracy, licence and tolerance too.  The password of
    an encrypted key is taken from TSFMC_KEY_PASSWORD.  A pair of keys:

    \b
      openssl ecparam -name prime256v1 -genkey -noout -out key.pem
      openssl ec -in key.pem -pubout -out key.pub
    """
    from .. import api

    fingerprint = api.sign(artifact, key, password=os.environ.get("TSFMC_KEY_PASSWORD"))
    if as_json:
        print_json({"artifact": str(artifact), "key_sha256": fingerprint})
        return
    say(f"{artifact} is signed by the key {fingerprint[:16]}...")
