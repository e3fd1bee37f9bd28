"""Applications at both ends that ask for keys all the time, and remember every key that they were given."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from common.config import Config
from common.config_file import load_config

AT_ONCE = 4
PATIENCE_S = 10.0
PAUSE_S, LAST_S = 0.2, 60.0
"""Between two rounds; for what waits at the end."""
ASKED_AGAIN = 8
"""Every so many keys one is asked for a second time: it must not come."""
GIVE_UP = 3
"""Refusals after which a key is held to be lost."""


class Consumer(threading.Thread):
    """Makes keys at one end and fetches them at the other.

    Attributes
    ----------
    made, fetched : key_ID -> key. twice : IDs that were given out a second time. lost : never came at the second end.
    """

    def __init__(self, here: Config, there: Config) -> None:
        super().__init__(daemon=True)
        self._here, self._there = here, there
        self._mine, self._theirs = sae_of(here), sae_of(there)
        self.made: dict[str, bytes] = {}
        self.fetched: dict[str, bytes] = {}
        self.twice: list[str] = []
        self.lost: list[str] = []
        self._waiting: dict[str, int] = {}
        self.ending = threading.Event()

    def run(self) -> None:
        """Until told to end."""
        for turn in itertools.count():
            if self.ending.wait(PAUSE_S):
                return
            self._make()
            self.fetch(again=turn % ASKED_AGAIN == 0)

    def _make(self) -> None:
        wanted = {"number": AT_ONCE, "size": 256}
        for key in self._ask(self._here, self._mine, f"{self._theirs}/enc_keys", wanted) or ():
            if key["key_ID"] in self.made:
                self.twice.append(key["key_ID"])
            self.made[key["key_ID"]] = base64.b64decode(key["key"])
            self._waiting[key["key_ID"]] = 0

    def fetch(self, *, again: bool = False) -> int:
        """What waits at the other end; how many still do."""
        for key_id in list(self._waiting)[: 4 * AT_ONCE]:
            found = self._fetch_one(key_id)
            if found is None:
                break  # nobody is there, or busy
            self._waiting[key_id] += 1
            if found:
                self.fetched[key_id] = found[0]
                if again and self._fetch_one(key_id):
                    self.twice.append(key_id)
                    again = False
            elif self._waiting[key_id] >= GIVE_UP:
                self.lost.append(key_id)
            else:
                continue
            del self._waiting[key_id]
        return len(self._waiting)

    def _fetch_one(self, key_id: str) -> list[bytes] | None:
        found = self._ask(self._there, self._theirs, f"{self._mine}/dec_keys", {"key_IDs": [{"key_ID": key_id}]})
        return None if found is None else [base64.b64decode(key["key"]) for key in found]

    def _ask(self, config: Config, sae: str, path: str, body: dict[str, Any]) -> list[dict[str, str]] | None:
        """The keys of an answer, none where the key manager refuses; None where it is busy or not there."""
        request = urllib.request.Request(
            f"https://{config.etsi014.listen}/api/v1/keys/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=identity(config, sae), timeout=PATIENCE_S) as answer:
                return list(json.load(answer)["keys"])
        except urllib.error.HTTPError as error:
            return None if error.code >= 500 else []
        except (OSError, ValueError, HTTPException):
            return None


def sae_of(config: Config) -> str:
    """The application at an end."""
    return next(sae for sae, kme in config.etsi014.saes.items() if kme == config.etsi014.kme_id)


def identity(config: Config, sae: str) -> ssl.SSLContext:
    """The certificate of an application."""
    secrets = config.path(config.etsi014.ca_certificate).parent
    context = ssl.create_default_context(cafile=str(config.path(config.etsi014.ca_certificate)))
    context.load_cert_chain(secrets / f"{sae}.crt", secrets / f"{sae}.key")
    return context


class Consumers:
    """Both directions."""

    def __init__(self, link: Path) -> None:
        alice, bob = load_config(link / "alice.toml"), load_config(link / "bob.toml")
        self.both = Consumer(alice, bob), Consumer(bob, alice)
        for one in self.both:
            one.start()

    @property
    def delivered(self) -> int:
        """Keys that both ends were given."""
        return sum(len(one.fetched) for one in self.both)

    def end(self, patience_s: float = LAST_S) -> None:
        """Ask for no more, and fetch what waits while both ends run."""
        for one in self.both:
            one.ending.set()
            one.join()
            end = time.monotonic() + patience_s
            while one.fetch() and time.monotonic() < end:
                time.sleep(PAUSE_S)

    def faults(self) -> list[str]:
        """What must never be: a key twice, two that differ, the same bytes under two names."""
        found = []
        for one in self.both:
            found += [f"{len(one.twice)} keys given twice"] if one.twice else []
            differ = [name for name, key in one.fetched.items() if one.made.get(name) != key]
            found += [f"{len(differ)} keys differ"] if differ else []
        made = [key for one in self.both for key in one.made.values()]
        found += [f"{len(made) - len(set(made))} keys have the bytes of another"] if len(set(made)) < len(made) else []
        return found

    @property
    def lost(self) -> int:
        """Keys that the second end never gave."""
        return sum(len(one.lost) for one in self.both)
