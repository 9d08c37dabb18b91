"""Tables that were written before a field was renamed still open: recipes, checkpoints' pages, specs as text."""

import pytest

from ppdgm.errors import SpecError
from ppdgm.inference import HMC, MonteCarloEM
from ppdgm.inference.runs.page import check_page
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.models import IAF, MAF, RealNVP, RQSpline
from ppdgm.specs import Spec

OLD = [
    (HMC(num_leapfrog=7), {"kind": "HMC", "leaps": 7}),
    *((flow(context_size=3), {"kind": flow.__name__, "context": 3}) for flow in (IAF, MAF, RealNVP, RQSpline)),
]


class Mine(IAF):
    """A class of the user's, of ours."""


class Own(Mine):
    """A class of the user's with a field of the old name."""

    context: int = 1


@pytest.mark.parametrize(("now", "table"), OLD, ids=lambda v: v["kind"] if isinstance(v, dict) else "")
def test_old_fields_are_read_and_written_with_their_new_names(now, table):
    assert Spec.from_dict(table) == now
    assert Spec.from_dict(now.to_dict()) == now and not set(now.to_dict()) & {"leaps", "context"}


def test_old_and_new_name_at_once_are_refused():
    with pytest.raises(SpecError, match="leaps"):
        Spec.from_dict({"kind": "HMC", "leaps": 7, "num_leapfrog": 8})


def test_python_code_and_other_kinds_have_only_the_new_name():
    with pytest.raises(SpecError, match="leaps"):
        HMC(leaps=7)
    with pytest.raises(SpecError, match="leaps"):
        Spec.from_dict({"kind": "SVI", "leaps": 7})


def test_users_classes():
    assert Spec.from_dict({"kind": Mine.kind(), "context": 5}, [Mine]) == Mine(context_size=5)
    assert Spec.from_dict({"kind": Own.kind(), "context": 5}, [Own]) == Own(context=5)


def test_recipes_and_pages():
    recipe = {
        "program": {
            "kind": "VAE", "event_shape": [4],
            "posterior": {"kind": "FlowPosterior", "flow": {"kind": "IAF", "context": 6}},
        },
        "engine": {"kind": "MonteCarloEM", "sampler": {"kind": "HMC", "leaps": 9}},
        "training": {},
    }  # fmt: skip
    page = {"recipe": recipe, "step": 1, "stopped": "done", "skipped": []}
    found = Recipe.from_table(check_page(page, "a.safetensors")["recipe"])
    assert found.program.posterior.flow == IAF(context_size=6)
    assert found.engine == MonteCarloEM(sampler=HMC(num_leapfrog=9))
