"""Every error the package raises.

::

    ByzerError
    ├── ConfigError (ValueError)            an argument or a setting is wrong
    │   ├── ModelFileError                  the file is not a model this engine reads
    │   ├── Unsupported                     this model or engine cannot do that
    │   └── LengthError                     the request is longer than the model's limit
    ├── ModelNotFound (LookupError)         no model of that name is deployed
    ├── ModelExists                         a model of that name is already deployed
    ├── DeployError                         the model did not come up, with the real cause
    ├── NotYet (NotImplementedError)        promised, not in this release
    │   └── NotYetAttribute (AttributeError)    the same, looked up by name
    └── CallError                           a call that was sent and failed
        ├── CallDenied                      a guard or a person refused the call
        ├── CallAborted                     abort() or undeploy() ended it
        ├── CallTimeout (TimeoutError)      no answer within the time allowed
        ├── Overloaded                      every slot and the queue are full
        ├── HumanUnavailable                nobody can be asked: end of input, no terminal
        ├── StreamError                     a stream broke off or broke its promise
        ├── EngineDied                      the engine's process ended during the call
        ├── ProviderUnreachable (ConnectionError)   no connection to the hosted model
        └── ProviderError                   the hosted model answered with an error

All are plain and picklable, so they cross processes unchanged.
"""

from __future__ import annotations

from typing import Any


def _rebuild(kind: type[ByzerError], args: tuple[Any, ...], state: dict[str, Any]) -> ByzerError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ByzerError(Exception):
    """The root of all errors of this package."""

    retryable = False
    """True when asking again may help and nothing has reached the caller yet."""

    retry_after: float | None = None
    """Seconds to wait before asking again, where the other side said so."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigError(ByzerError, ValueError):
    """An argument or a setting is wrong; the message says which and what to write."""


class ModelFileError(ConfigError):
    """The file is not a model this engine reads."""


class Unsupported(ConfigError):
    """This model or engine cannot do what was asked."""


class LengthError(ConfigError):
    """The request is longer than the model's limit."""


class ModelNotFound(ByzerError, LookupError):
    """No model of that name is deployed."""

    def __init__(self, model: str, deployed: list[str] | None = None) -> None:
        names = ", ".join(deployed) if deployed else "none"
        super().__init__(
            f"No model {model!r} is deployed (deployed: {names}). "
            f"Call llm.deploy(..., udf_name={model!r}) first."
        )
        self.model = model


class ModelExists(ByzerError):
    """A model of that name is already deployed."""


class DeployError(ByzerError):
    """The model did not come up; ``__cause__`` and the message carry the real reason."""


class NotYet(ByzerError, NotImplementedError):
    """Promised by the interface, not in this release."""


class NotYetAttribute(NotYet, AttributeError):
    """``NotYet`` where a name is looked up, so that ``hasattr`` says no."""


class CallError(ByzerError):
    """A call that was sent and failed."""


class CallDenied(CallError):
    """A guard or a person refused the call."""


class CallAborted(CallError):
    """The call was ended from outside: ``abort()``, ``undeploy()`` or a closing runtime."""


class CallTimeout(CallError, TimeoutError):
    """No answer within the time allowed."""


class Overloaded(CallError):
    """Every slot and the waiting queue are full; ``retry_after`` is in seconds."""

    retryable = True

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HumanUnavailable(CallError):
    """A person was to be asked and nobody can answer: end of input, no terminal."""


class StreamError(CallError):
    """A stream broke off before its end, or could not keep its promise."""


class EngineDied(CallError):
    """The engine's process ended during the call; it is being restarted."""

    retryable = True


class ProviderUnreachable(CallError, ConnectionError):
    """No connection to the hosted model."""

    retryable = True


class ProviderError(CallError):
    """The hosted model answered with an error.

    ``status`` is the HTTP status, ``code`` the provider's own code and ``request_id`` the id
    to quote to its support, each where known.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = status in (408, 409, 429) or (status >= 500 and status != 501)
