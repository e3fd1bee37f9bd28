"""The exception tree. Expected outcomes (QBER too high, decoder failed, no key left) are values, not exceptions.

Three radii: a fault ends one block, the link, or the node. Every class has a ``remedy``: one sentence that tells the
operator what to do. No exception ever carries secret bits.
"""

from __future__ import annotations


class QkdError(Exception):
    """Anything this software raises on purpose."""

    remedy = "See the message; if it does not help, run the role's `check` command."

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        if remedy is not None:
            self.remedy = remedy


class ConfigurationError(QkdError):
    """A configuration file, option or manifest is wrong (exit code 2)."""

    remedy = "Correct the named field and run `check` again."


class InputError(QkdError):
    """Data handed in by a user (a file, an array) is malformed (exit code 2)."""

    remedy = "Correct the named input."


class LocalProtocolError(QkdError):
    """Our own code broke the protocol's contract: a defect of this software."""

    remedy = "This is a defect: please report it with the log."


class RemoteProtocolError(QkdError):
    """The peer sent something that the protocol does not allow."""

    remedy = "Compare the software versions at both ends; look for a disturbance of the classical channel."


class AuthenticationError(RemoteProtocolError):
    """A tag did not verify: wrong pre-shared key, or a message was altered on the way (exit code 4)."""

    remedy = (
        "Check that both ends hold the link secret of the same `qkd init`; if they do, the channel is under attack. "
        "This node does not start again before `qkd alarm clear`."
    )


class LinkLocked(QkdError):
    """Authentication failed in an earlier run: nothing starts until a person has cleared the alarm (exit code 4)."""

    remedy = "Find out why, then `qkd alarm clear`."


class HandshakeMismatch(RemoteProtocolError):
    """The two configurations differ in a field that must be equal."""

    remedy = "Set the named field to the same value in both configurations."

    def __init__(self, field: str, ours: object, theirs: object) -> None:
        super().__init__(f"handshake mismatch in {field!r}: ours {ours!r}, the peer's {theirs!r}")
        self.field = field


class AuthenticationPoolEmpty(QkdError):
    """No authentication key is left: the link stops (an unauthenticated bit is never sent)."""

    remedy = "Make a new link secret with `qkd init` and install it at both ends."


class PeerUnreachable(QkdError):
    """The peer did not answer in time (exit code 3)."""

    remedy = "Check that the peer runs, the address and port, and the CURVE keys at both ends."


class DeviceError(QkdError):
    """A device failed, is missing, or answered nonsense (exit code 3)."""

    remedy = "Run `qkd doctor` and look at the named device."


class AnotherDeviceError(DeviceError):
    """Something answers at the address, but not the instrument that the manifest means (exit code 3)."""

    remedy = "Correct the address, the expected identity or the driver."


class EnvironmentFault(QkdError):
    """The machine lacks something: room on a disk, the right to write (exit code 3)."""

    remedy = "Give the machine what it lacks."


class KeyStoreError(QkdError):
    """The key store cannot be opened or is damaged (exit code 3)."""

    remedy = "Check the path, the permissions and the key file of the store."


class KeyStoreInUse(KeyStoreError):
    """Another process is the one that writes (exit code 3)."""

    remedy = "Stop the other daemon."


class StoreUnavailable(KeyStoreError):
    """The key store's disk takes nothing now: full, read-only or failing; nothing was changed (exit code 3)."""

    remedy = "Make room on the key store's disk, and see that it can be written."


def exit_code(error: BaseException) -> int:
    """Of a process that ends with this fault; what nobody meant to raise is a defect."""
    if isinstance(error, AuthenticationError | LinkLocked):
        return 4
    if isinstance(error, ConfigurationError | InputError):
        return 2
    return 3 if isinstance(error, QkdError) else 1
