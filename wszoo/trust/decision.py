"""The decision whether to take an index from a remote: pure, without I/O, and strict about the order of its questions.

One :class:`IndexCheck` decides about one index. The legal orders of calls are::

    resolved  ->  consider or pass_over (as often as there are signatures, also never)  ->  decide

``resolved`` and ``decide`` once each; anything else raises ``RuntimeError``, since then the program is wrong and not
the remote. Nothing of a model may be fetched, let alone loaded, before ``decide`` has returned.

An envelope is asked in this order, and believed no further than it came (:class:`Stage`):

1. *envelope*: it decodes, within its bounds, with the one payload type that exists;
2. *key*: one of the keys trusted for this remote signed the payload; only then is the payload decoded;
3. *statement*: it is an in-toto statement about a release;
4. *subject*: about this index;
5. *name*: under the name and tag that were asked for, so that nobody serves one model in place of another;
6. *expiry*: it has not expired;
7. *release*: no newer release was taken from this remote before, and no other index under the same number.

One envelope that passes is enough, whatever stands before or after it. If none does, the one that came furthest gives
the reason. ``allow_unsigned`` helps only where no trusted key has spoken: what a trusted key signed and what is
expired, rolled back or of another name stays refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING

from wszoo.errors import IntegrityError, NotFoundError, TrustError
from wszoo.schema.trust import Decision, How, decode_statement
from wszoo.text import printable
from wszoo.trust.envelope import verified_payload

if TYPE_CHECKING:
    from datetime import datetime

    from wszoo.digest import Digest
    from wszoo.errors import WszooError
    from wszoo.names import Ref
    from wszoo.schema.trust import Release, Seen, Statement
    from wszoo.trust.keys import PublicKey


class Stage(IntEnum):
    """The question that an envelope failed at."""

    ENVELOPE = auto()
    KEY = auto()
    STATEMENT = auto()
    SUBJECT = auto()
    NAME = auto()
    EXPIRY = auto()
    RELEASE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known before the remote is asked.

    Attributes:
        ref: what was asked for, perhaps pinned.
        remote: where, for messages.
        folder: the user named a folder on the command line.
        keys: trusted for this remote.
        now: the time, with its zone.
        seen: the newest release taken from this remote under this ref; None when there was none.
        allow_unsigned: the user wants it without a signature, this once.
    """

    ref: Ref
    remote: str
    folder: bool = False
    keys: tuple[PublicKey, ...] = ()
    now: datetime
    seen: Seen | None = None
    allow_unsigned: bool = False


class _State(Enum):
    NEW = auto()
    RESOLVED = auto()
    DECIDED = auto()


@dataclass(slots=True)
class IndexCheck:
    """Decides about one index; see the module for the order of calls.

    Attributes:
        situation: what is known beforehand.
    """

    situation: Situation
    _state: _State = field(init=False, default=_State.NEW)
    _index: Digest | None = field(init=False, default=None)
    _accepted: list[Decision] = field(init=False, default_factory=list)
    _refused: list[tuple[Stage, WszooError]] = field(init=False, default_factory=list)

    def resolved(self, index: Digest) -> None:
        """The remote says that the ref is this index.

        Raises:
            NotFoundError: the ref is pinned to another one.
            RuntimeError: it was said before.
        """
        self._step(_State.NEW, _State.RESOLVED)
        pin = self.situation.ref.digest
        if pin is not None and pin != index:
            raise NotFoundError(
                f"{self.situation.remote} has {self.situation.ref.tagged} as {index}, not as {pin}",
                hint="the tag has moved since it was pinned: pull without the digest to take what is there now",
            )
        self._index = index

    @property
    def needs_signature(self) -> bool:
        """True when the decision hangs on a signature, and a key is trusted that could have made it."""
        return not self._vouched and bool(self.situation.keys)

    @property
    def may_look(self) -> bool:
        """False when no signature could help: then nothing else is asked of the remote."""
        return self._vouched is not None or bool(self.situation.keys) or self.situation.allow_unsigned

    def consider(self, envelope: bytes, what: str) -> None:
        """Look at one envelope. What is wrong with it is kept for :meth:`decide`.

        Args:
            envelope: its bytes, hostile.
            what: for messages.

        Raises:
            RuntimeError: the index is not known yet, or the decision was made.
        """
        self._step(_State.RESOLVED, _State.RESOLVED)
        try:
            self._accepted.append(self._examine(envelope, what))
        except _RefusedError as refusal:
            self._refused.append((refusal.stage, refusal.error))

    def pass_over(self, defect: WszooError) -> None:
        """Note a signature that has no envelope to look at; for :meth:`decide` it is one that is none.

        Args:
            defect: what is wrong with it.

        Raises:
            RuntimeError: the index is not known yet, or the decision was made.
        """
        self._step(_State.RESOLVED, _State.RESOLVED)
        self._refused.append((Stage.ENVELOPE, defect))

    @property
    def odd(self) -> tuple[WszooError, ...]:
        """What is wrong with signatures so far, but for those by other keys: other publishers may sign too."""
        return tuple(error for stage, error in self._refused if stage is not Stage.KEY)

    def decide(self) -> Decision:
        """What the index is taken on.

        Raises:
            TrustError: nothing vouches for it, or what does refuses it.
            IntegrityError: its signatures are none.
            NotFoundError: its signatures are listed, and the remote does not have them.
            RuntimeError: the index is not known yet, or the decision was made.
        """
        self._step(_State.RESOLVED, _State.DECIDED)
        if self._vouched is not None:
            return self._decision(self._vouched)
        if self._accepted:
            return max(self._accepted, key=lambda each: each.release or 0)
        stage, error = max(self._refused, key=lambda each: each[0], default=(None, None))
        if error is not None and stage is not None and stage > Stage.KEY:
            raise error
        if self.situation.allow_unsigned:
            return self._decision(How.UNSIGNED)
        raise error or self._nobody()

    def _step(self, expected: _State, then: _State) -> None:
        if self._state is not expected:
            raise RuntimeError(f"the check of an index is {self._state.name}, not {expected.name}")
        self._state = then

    @property
    def _vouched(self) -> How | None:
        if self.situation.ref.digest is not None:
            return How.PINNED
        return How.FOLDER if self.situation.folder else None

    def _examine(self, envelope: bytes, what: str) -> Decision:
        try:
            payload, key = verified_payload(envelope, self.situation.keys, what)
        except IntegrityError as error:
            raise _RefusedError(Stage.ENVELOPE, error) from error
        except TrustError as error:
            raise _RefusedError(Stage.KEY, error) from error
        try:
            statement = decode_statement(payload, what)
        except IntegrityError as error:
            raise _RefusedError(Stage.STATEMENT, error) from error
        self._check_subject(statement, what)
        release = statement.predicate
        self._check_name(release)
        self._check_expiry(release)
        self._check_release(release)
        return self._decision(How.SIGNED, key.id, release)

    def _check_subject(self, statement: Statement, what: str) -> None:
        assert self._index is not None
        if statement.subject[0].digest.get("sha256") != self._index.hex:
            raise _refused(
                Stage.SUBJECT,
                f"{what} is about another index than {self._index}, which {self.situation.remote} has as "
                f"{self.situation.ref.tagged}",
                hint="the remote may be compromised: tell the publisher",
            )

    def _check_name(self, release: Release) -> None:
        signed = f"{release.name}:{release.tag}"
        if signed != self.situation.ref.tagged:
            raise _refused(
                Stage.NAME,
                f"{self.situation.remote} has {self._index} as {self.situation.ref.tagged}, and its publisher "
                f"signed it as {printable(signed)}",
                hint="someone put it under another name: pull what it was signed as, or tell the publisher",
            )

    def _check_expiry(self, release: Release) -> None:
        if release.expires <= self.situation.now:
            raise _refused(
                Stage.EXPIRY,
                f"the signature of {self.situation.ref.tagged} at {self.situation.remote} expired on "
                f"{release.expires:%Y-%m-%d %H:%M %Z}; it is {self.situation.now:%Y-%m-%d %H:%M %Z} here",
                hint="ask the publisher to sign it again; if this machine's clock is wrong, correct it",
            )

    def _check_release(self, release: Release) -> None:
        seen = self.situation.seen
        if seen is None or release.release > seen.release:
            return
        if release.release == seen.release and seen.index == self._index:
            return
        older = "older than" if release.release < seen.release else "another index under the same number as"
        raise _refused(
            Stage.RELEASE,
            f"{self.situation.remote} has release {release.release} of {self.situation.ref.tagged}, {older} "
            f"release {seen.release}, which was taken from there before",
            hint=f"a remote may be serving old files on purpose; if you want it, pin it: "
            f"{self.situation.ref.tagged}@{self._index}",
        )

    def _decision(self, how: How, key: str = "", release: Release | None = None) -> Decision:
        assert self._index is not None
        return Decision(
            how=how,
            ref=self.situation.ref.tagged,
            index=self._index,
            remote=self.situation.remote,
            key=key,
            release=release.release if release else None,
            expires=release.expires if release else None,
        )

    def _nobody(self) -> TrustError:
        ref, remote = self.situation.ref.tagged, self.situation.remote
        pin = f"pin it with {ref}@sha256:..."
        if not self.situation.keys:
            return TrustError(
                f"nothing vouches for {ref} at {remote}: a plan is native code",
                hint=f"trust its publisher's key with 'wszoo trust add {remote} KEY', {pin}, or copy it to a folder "
                "of yours and name that with --from",
            )
        before = " Earlier releases of it were signed." if self.situation.seen else ""
        return TrustError(
            f"{ref} at {remote} is not signed, and you trust a key for that remote.{before}",
            hint=f"tell the publisher, or {pin}",
        )


class _RefusedError(Exception):
    def __init__(self, stage: Stage, error: WszooError) -> None:
        super().__init__(error.message)
        self.stage = stage
        self.error = error


def _refused(stage: Stage, message: str, *, hint: str) -> _RefusedError:
    return _RefusedError(stage, TrustError(message, hint=hint))
