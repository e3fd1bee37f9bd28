"""Ways to make good things bad: bytes, texts and documents. Everything is drawn from a seeded generator."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

ODD_BYTES = (b"", b"\0", b"\0" * 4096, b"\xff\xfe\x00", b"\xef\xbb\xbf", b"[" * 100_000, b"{" * 100_000, b"9" * 100_000,
             b"\n" * 1000, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"SQLite format 3\0", b"-----BEGIN PRIVATE KEY-----\n",
             b'{"rows": ' * 3000, b"a" * (1 << 20))  # fmt: skip
ODD_TEXTS = ("", " ", "\0", "é", "\u202e\u0000x", "x" * 300, "x" * 100_000, "n/" * 3000, "/dev/null", "/dev/zero",
             "/proc", "/proc/self/mem", "/proc/self/environ", "..", ".", "/", "%s%n", "${HOME}", "-1", "nan", "[::1",
             "tcp://x:99999", "127.0.0.1:0", "a b", "\n", "'\"", "\U0001f511")  # fmt: skip
ODD_NUMBERS = (0, -1, 1, 2, 3, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.5,
               -0.0, 1e-320, 1e-30, 1e15, 1e308, float("inf"), float("-inf"), float("nan"))  # fmt: skip
Document = dict[str, Any]


def bad_bytes(rng: Random, raw: bytes) -> bytes:
    """Cut, bitten, doubled, filled or replaced."""

    def bitten() -> bytes:
        mended = bytearray(raw)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(mended) or 1)
            mended[at : at + rng.randint(0, 9)] = rng.randbytes(rng.randint(0, 9))
        return bytes(mended)

    def flipped() -> bytes:
        mended = bytearray(raw)
        for _ in range(rng.randint(1, 20)):
            mended[rng.randrange(len(mended))] ^= 1 << rng.randrange(8)
        return bytes(mended)

    at = rng.randrange(len(raw) + 1)
    ways: list[Callable[[], bytes]] = [
        bitten,
        bitten,
        flipped if raw else bitten,
        lambda: raw[:at],
        lambda: raw[at:],
        lambda: raw + raw,
        lambda: raw[:at] + bytes(rng.randint(1, 5000)) + raw[at:],
        lambda: raw[:at] + bytes(max(len(raw) - at, 0)),
        lambda: raw[:64] + rng.randbytes(rng.randint(0, 400)),
        lambda: rng.randbytes(rng.randint(0, 2000)),
        lambda: rng.choice(ODD_BYTES),
        lambda: rng.choice(ODD_BYTES) + raw,
        lambda: raw + rng.choice(ODD_BYTES),
    ]
    return rng.choice(ways)()


def odd_value(rng: Random) -> Any:
    """Of any type."""
    deep: Any = []
    for _ in range(rng.choice((3, 60, 400))):
        deep = [deep]
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(ODD_TEXTS),
        lambda: rng.choice(ODD_NUMBERS),
        lambda: rng.choice((True, False)),
        lambda: rng.choice(([], {}, [{}], [[]], {"": ""}, [1, "a", None], {"x": {"y": []}}, deep)),
        lambda: rng.uniform(-2, 2),
        lambda: rng.randint(-10, 10**6),
    ]
    return rng.choice(kinds)()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a document but the document itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in list(items):
        yield (*path, name)
        yield from places(part, (*path, name))


def bad_document(rng: Random, good: Document, below: tuple[Any, ...] = ()) -> Document:
    """A copy with one to three things wrong, all below ``below``."""
    document = copy.deepcopy(good)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = [path for path in places(document) if path[: len(below)] == below and len(path) > len(below)]
        if not found:
            break
        *way, name = rng.choice(found)
        parent = document
        for step in way:
            parent = parent[step]  # type: ignore[assignment]
        _spoil(rng, parent, name)
    return document


def _spoil(rng: Random, parent: Any, name: Any) -> None:
    value = parent[name]
    what = rng.randrange(8)
    if what == 0:
        del parent[name]
    elif what == 1 and isinstance(parent, dict):
        parent[f"{name}{rng.choice(('x', '_', ' ', 'é', ''))}" if rng.random() < 0.8 else rng.choice(ODD_TEXTS)] = value
    elif what == 2:
        parent[name] = [value]
    elif what == 3 and isinstance(value, int | float) and not isinstance(value, bool):
        parent[name] = rng.choice((value * 1e6, value + 1, -value, value / 1e6, str(value)))
    elif what == 4 and isinstance(value, str):
        parent[name] = rng.choice((value + "\0", value * 100, value.upper(), value[:-1], f"é{value}", f" {value}"))
    else:
        parent[name] = odd_value(rng)


def toml(document: Document) -> str:
    """As TOML; nulls, which it cannot hold, become texts."""
    plain = [f"{_text(name)} = {_value(value)}" for name, value in document.items() if not isinstance(value, dict)]
    for name, table in document.items():
        if isinstance(table, dict):
            plain += [f"[{_text(name)}]", *(f"{_text(inner)} = {_value(value)}" for inner, value in table.items())]
    return "\n".join(plain) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)} = {_value(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join([_value(part) for part in value]) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else _text(value)


def _text(value: Any) -> str:
    return json.dumps(str(value), ensure_ascii=False)


# -- ways to spoil a file ---------------------------------------------------------------------------------------------


def text_or_values(rng: Random, path: Path, content: dict[str, Any]) -> None:
    if rng.random() < 0.4:
        path.write_text(toml(content))
        spoil_file(rng, path)
    else:
        path.write_text(toml(bad_document(rng, content)), errors="replace")


def write_json(path: Path, document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False)
    path.write_bytes(text.encode(errors="surrogatepass"))


def spoil_file(rng: Random, path: Path, huge: tuple[int, ...] = (31, 36)) -> None:
    """Bad bytes; sometimes another thing than a file."""
    raw = path.read_bytes() if path.exists() else b""
    what = rng.randrange(16)
    if what >= 6:
        path.write_bytes(bad_bytes(rng, raw))
        return
    path.unlink(missing_ok=True)
    if what == 0:
        path.mkdir()
    elif what == 1:
        path.symlink_to(path.name)
    elif what == 2:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/proc/self/mem", "/proc", "/dev/urandom")))
    elif what == 3:
        with path.open("wb") as file:
            os.truncate(file.fileno(), 1 << rng.choice(huge))
    elif what == 4:
        os.mkfifo(path)


def odd_arrays(rng: Random, path: Path) -> None:
    """Good files of arrays that are no tags."""
    arrays = [np.zeros(0), np.zeros((3, 3)), np.array(5), np.array(["a"]), np.array([None], object),
              np.array([2**63], "u8"),
              np.array([np.nan]), np.zeros(3, "M8[s]"), np.zeros(3, [("a", "i4")]), np.arange(9), np.array([-1, -2]),
              np.array([2**62, -(2**62)]), np.zeros(3, bool), np.array([1 + 2j]),
              np.array([-(2**63), 2**63 - 1])]  # fmt: skip
    if path.suffix == ".npz":
        names = rng.choice((("times_ps", "channels"), ("times_ps",), ("times", "channels"), ()))
        np.savez(path, **{name: rng.choice(arrays) for name in names})  # type: ignore[arg-type]
    else:
        np.save(path, rng.choice(arrays), allow_pickle=True)
