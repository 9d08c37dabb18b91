"""The exceptions of an invariant: it does not hold, or it could not be checked."""


class Broken(Exception):
    """An invariant does not hold. The message shows what was found, what was expected, and what to do."""


class NotHere(Exception):
    """An invariant does not apply, or can't be checked; the message gives the reason."""
