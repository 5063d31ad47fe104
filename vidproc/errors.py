"""All that can go wrong, as one tree.

VidprocError
  ConfigError        an operator must change something: refused before work starts, exit code 2
    Refused          a store refused us, and says why: the finer class is expired_token, wrong_clock, denied, ...
    Forged           a lake holds something that no vidproc wrote, and that would lead out of it or mislead
  MediaError         this video, or this stretch of it, will never work: a row in `failures`, the run goes on
    Declined         the object is not a video that we can use (audio only, empty, encrypted, not media)
    Undecodable      the container opened, but a stretch of it does not decode
    LimitExceeded    it asks for more pixels, streams, memory or time than the settings allow
    FastPathWrong    the fast path gave other pictures than plain decoding: the video is decoded plainly instead
    Archived         the object lies in an archive tier of its store: due again once it is restored
  Denied             the store or the system does not let us read this one object: due again in the next run
  RunAborted         the run stopped early: the cluster is gone, or too much failed at once
    NeverComesUp     a step cannot be set up, whoever tries: also a ConfigError
  TransientError     worth another try: storage timed out, a worker died, a device ran out of memory
    SourceChanged    the object was replaced or deleted while it was read
    DiskFull         a disk or a quota has no room left: a few more tries, then the run stops
  Damaged            a table or an object of a lake is not what was written: restore it
  NotFound           storage holds nothing under that name (also a KeyError)
  AlreadyExists      an object that was to be created is there already

Anything else is a bug and keeps its traceback. `error_class` is the short name which the tables
carry; it is part of the output's promise, so classes are added and never renamed.
"""

from __future__ import annotations


class VidprocError(Exception):
    """The root: a message for a person, which names the thing, the cause and the way out."""

    error_class = "internal"


class ConfigError(VidprocError):
    error_class = "config"


class Refused(ConfigError):
    """Carries why a store refused (`expired_token`, `wrong_clock`, `wrong_region`, `denied`, `archived`, ...)."""

    def __init__(self, message: str, error_class: str = "denied") -> None:
        super().__init__(message)
        self.error_class = error_class

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return type(self), (str(self), self.error_class)


class Forged(ConfigError):
    error_class = "forged"


class RunAborted(VidprocError):
    error_class = "aborted"


class MediaError(VidprocError):
    error_class = "media"


class Declined(MediaError):
    """Carries a finer class (`audio_only`, `empty`, `not_media`, `encrypted`, ...) for the tables."""

    def __init__(self, message: str, error_class: str = "declined") -> None:
        super().__init__(message)
        self.error_class = error_class

    def __reduce__(self) -> tuple[type[Declined], tuple[str, str]]:
        return type(self), (str(self), self.error_class)


class Undecodable(MediaError):
    error_class = "decode"


class LimitExceeded(MediaError):
    error_class = "limit"


class FastPathWrong(MediaError):
    error_class = "verify"


class Archived(MediaError):
    error_class = "archived"


class Denied(VidprocError):
    """Carries a finer class: `denied`, `kms` where it is the key that encrypts the object, `unreadable` for a file."""

    def __init__(self, message: str, error_class: str = "denied") -> None:
        super().__init__(message)
        self.error_class = error_class

    def __reduce__(self) -> tuple[type[Denied], tuple[str, str]]:
        return type(self), (str(self), self.error_class)


class NeverComesUp(RunAborted, ConfigError):
    """A step's own code fails at each setting up: the job can never run."""

    error_class = "config"


class TransientError(VidprocError):
    error_class = "transient"


class DiskFull(TransientError):
    """Its error_class stays `transient`: what it cost is due again in the next run."""


class SourceChanged(TransientError):
    error_class = "source_changed"


class Damaged(VidprocError):
    error_class = "damaged"


class NotFound(VidprocError, KeyError):
    error_class = "not_found"

    __str__ = Exception.__str__  # KeyError would put the sentence in quotes


class AlreadyExists(VidprocError):
    error_class = "already_exists"
