"""How an invariant says that it does not hold, or could not be looked at."""


class Broken(Exception):
    """An invariant does not hold: what was got, what was expected, and what to do."""


class NotHere(Exception):
    """An invariant does not apply, or can't be looked at, for the reason given."""
