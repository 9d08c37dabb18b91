"""Whether a run goes on with the data that it was started with."""

from __future__ import annotations

from collections.abc import Mapping

from ppdgm.errors import DataError
from ppdgm.specs import Table


def check_same_data(page: Table, facts: Mapping[str, object]) -> None:
    """Refuse other data, and other validation data: the values that choose the best parameters would be of both.

    Args:
        page: of the checkpoint; of an older run it may have no checksum.
        facts: of the data now; "held_out" is the checksum of the validation data, if there are any.

    Raises:
        DataError: with what differs.
    """
    for name, what in (("fields", "fields"), ("data_size", "number of rows"), ("fingerprint", "content")):
        if page.get(name) != facts[name]:
            raise DataError(
                f"Data: got other data than the run was started with: the {what} was {page.get(name)!r}, and "
                f"is now {facts[name]!r}. To train on other data, start a new run from the parameters: fit(…, "
                "params=load(…).params)."
            )
    if page.get("weights") != facts.get("weights"):
        got = "no weights of rows" if facts.get("weights") is None else "other weights of rows"
        raise DataError(
            f"weights: got {got} than the run was started with. Give the same: resume(…, weights=…); if it had none, "
            "leave them out."
        )
    if not page.get("watch"):
        return
    now = facts.get("held_out")
    if now is None:
        raise DataError(
            "validation: the run was started with validation data, which choose the parameters that it returns. Give "
            "them again: resume(…, validation=…)."
        )
    if page.get("held_out") not in (None, now):
        raise DataError(
            "validation: got other data than the run was started with, so that the best parameters would be chosen by "
            "values of both. Give the same; to validate with other data, start a new run from the parameters: "
            "fit(…, params=load(…).params)."
        )
