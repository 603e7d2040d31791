"""Every error that wszoo raises on purpose, grouped by what a caller would do about it.

::

    WszooError
    |-- UsageError          2   change the request: a name, a target, a profile, an option
    |-- NotFoundError       3   name something that exists, or pull it first
    |-- IntegrityError      4   bytes are not what they should be: fetch them again, or distrust the source
    |   |-- MalformedError        a document or blob does not follow the format
    |   `-- LimitError            larger, deeper or longer than wszoo accepts
    |-- IncompatibleError   5   use another plan, machine, shape or version
    |-- MissingExtraError   6   install an optional dependency
    |-- BuildError          7   the model, the exporter or the builder refused
    |-- StorageError        8   free space, fix permissions
    |-- RemoteError         9   the other side failed: try again, or another remote
    `-- TrustError         10   decide whether to trust the source

The number is the exit status of the command line and is stable. 0 is success, 1 a defect in wszoo itself,
130 an interrupt.

A message says what happened and with which value; ``hint`` says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class WszooError(Exception):
    """Base of all expected errors.

    Args:
        message: what happened, with the offending value.
        hint: what the user can do about it; empty when there is nothing to add.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(WszooError):
    """The request itself is wrong."""

    exit_code = 2


class NotFoundError(WszooError):
    """A ref, blob, component or file that was asked for does not exist."""

    exit_code = 3


class IntegrityError(WszooError):
    """Bytes differ from what their digest, size or document promised."""

    exit_code = 4


class MalformedError(IntegrityError):
    """A document or blob does not follow its format."""


class LimitError(IntegrityError):
    """A size, depth or count is over what wszoo accepts from outside."""


class IncompatibleError(WszooError):
    """Nothing is damaged, but it does not fit this machine, version or shape."""

    exit_code = 5


class MissingExtraError(WszooError):
    """An optional dependency is needed and not installed."""

    exit_code = 6

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"the Python package {module!r} is not installed, and {purpose} needs it",
            hint=f'install it with: pip install "wszoo[{extra}]"',
        )


class BuildError(WszooError):
    """An export, a parser or a builder refused the model, or its result is wrong."""

    exit_code = 7


class StorageError(WszooError):
    """The local file system refused: full, read-only, or failing."""

    exit_code = 8


class RemoteError(WszooError):
    """A remote could not be reached or answered nonsense.

    Args:
        message: as for every error.
        hint: as for every error.
        retry_after: seconds that the remote asks to be left alone; None when it does not say.
        permanent: trying this remote again is useless, as when it refuses the credentials.
    """

    exit_code = 9

    def __init__(
        self, message: str, *, hint: str = "", retry_after: float | None = None, permanent: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.permanent = permanent


class TrustError(WszooError):
    """Nothing vouches for these bytes."""

    exit_code = 10
