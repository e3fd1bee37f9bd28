"""Fetch keys at both ends of a demonstration through ETSI GS QKD 014 and compare them."""

from __future__ import annotations

import hmac
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from common.config import Config
from common.config_file import load_config
from common.errors import PeerUnreachable

KEYS_EACH_WAY = 4
ATTEMPTS = 20


def fetch_and_compare(directory: Path) -> tuple[int, bool]:
    """Keys made at Alice's node and fetched at Bob's, and the other way round.

    Returns
    -------
    (number of keys compared, whether every pair is equal). The keys themselves stay in this function.
    """
    alice, bob = load_config(directory / "alice.toml"), load_config(directory / "bob.toml")
    master, slave = _sae_of(alice), _sae_of(bob)
    compared, equal = 0, True
    for here, there, mine, theirs in ((alice, bob, master, slave), (bob, alice, slave, master)):
        made = _call(here, mine, f"{theirs}/enc_keys", {"number": KEYS_EACH_WAY, "size": 256})["keys"]
        ids = {"key_IDs": [{"key_ID": key["key_ID"]} for key in made]}
        fetched = _call(there, theirs, f"{mine}/dec_keys", ids)["keys"]
        pairs = {key["key_ID"]: key["key"] for key in fetched}
        for key in made:
            compared += 1
            equal &= hmac.compare_digest(key["key"], pairs.get(key["key_ID"], ""))
    return compared, equal


def _sae_of(config: Config) -> str:
    return next(sae for sae, kme in config.etsi014.saes.items() if kme == config.etsi014.kme_id)


def _call(config: Config, sae: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One POST as this application; a key manager that is busy is asked again."""
    secrets = config.path(config.etsi014.ca_certificate).parent
    context = ssl.create_default_context(cafile=str(config.path(config.etsi014.ca_certificate)))
    context.load_cert_chain(secrets / f"{sae}.crt", secrets / f"{sae}.key")
    request = urllib.request.Request(
        f"https://{config.etsi014.listen}/api/v1/keys/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code != 503 or attempt + 1 == ATTEMPTS:
                raise PeerUnreachable(f"{config.role}'s key delivery answered {error.code}: {text}") from None
            time.sleep(0.5)
        except OSError as error:
            raise PeerUnreachable(f"{config.role}'s key delivery cannot be reached: {error}") from None
    raise PeerUnreachable("no attempt was made")
