"""Data sets of torch, Hugging Face and anndata as the arrays that a run reads."""

from __future__ import annotations

from typing import Any

from ppdgm.data import codings_of, is_collection, opened
from ppdgm.inference.evaluation.estimates import leave_labels
from ppdgm.program import AnyProgram, check_program


def opened_for(program: AnyProgram, data: Any, beside: Any = None) -> Any:
    """The arrays of such an object, with its labels if the program reads them; all other data unchanged.

    Args:
        program: of the run.
        data: training data, or validation data.
        beside: the training data of validation data: these get the same columns and classes.

    Raises:
        DataError: the object has several splits, or rows that a run could not see again.
    """
    if not is_collection(data):
        return data
    check_program(program)
    found = opened(data, {}, True) if beside is None else opened(data, codings_of(beside))
    return leave_labels(program, found)
