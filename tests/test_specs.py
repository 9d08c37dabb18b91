"""Specs: text and back, immutability, equality, and what they say of a wrong field."""

import json
import sys
import tomllib
from typing import ClassVar

import numpy as np
import pytest
import torch
from programs import PROGRAMS, Coupling

from ppdgm.errors import SpecError
from ppdgm.inference.engines.svi import SVI
from ppdgm.models import (
    MLP,
    PPCA,
    VAE,
    Bernoulli,
    DiagonalNormal,
    GatedMLP,
    Gaussian,
    Net,
    Prior,
    Program,
    ResidualMLP,
    StandardNormal,
)

every_program = pytest.mark.parametrize("name", PROGRAMS)


# --- text and back -------------------------------------------------------------------------------------------------


@every_program
def test_round_trips(name):
    program = PROGRAMS[name]()
    for back in (Program.from_json(program.to_json()), type(program).from_toml(program.to_toml())):
        assert type(back) is type(program)
        assert back == program
        assert hash(back) == hash(program)
        assert back.to_dict() == program.to_dict()
        shapes = {n: p.shape for n, p in program.declarations().params.items()}
        assert {n: p.shape for n, p in back.declarations().params.items()} == shapes


def test_the_text_is_plain_and_readable():
    program = VAE(event_shape=(4, 4), latent=3, likelihood=Gaussian(scale=2), encoder=ResidualMLP(norm=None))
    table = tomllib.loads(program.to_toml())
    assert table == json.loads(program.to_json())
    assert (table["kind"], table["event_shape"], table["latent"]) == ("VAE", [4, 4], 3)
    assert table["likelihood"] == {"kind": "Gaussian", "scale": 2.0, "min_scale": 1e-3}
    assert table["encoder"]["norm"] == {"kind": "none"}  # TOML has no null, and "layer" is this field's default
    assert table["decoder"] == {"kind": "MLP", "dropout": 0.0, "hidden": [200, 200], "activation": "tanh"}


def test_text_by_hand_needs_only_what_has_no_default():
    text = 'kind = "VAE"\nevent_shape = [5]\nencoder = {kind = "GatedMLP", hidden = [7]}\n'
    assert Program.from_toml(text) == VAE(event_shape=(5,), encoder=GatedMLP(hidden=(7,)))


# --- classes of one's own ------------------------------------------------------------------------------------------

MINE = """
from ppdgm.models import MLP, Net, VAE as Ours


class Doubled(MLP):
    times: int = 2


class VAE(Ours):  # with the name of one of ppdgm's own
    extra: int = 0
"""


@pytest.fixture
def my_file(tmp_path, monkeypatch):
    """A file of the user's, importable and not yet imported."""
    (tmp_path / "my_programs.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_programs", raising=False)
    yield "my_programs"
    sys.modules.pop("my_programs", None)


def text_with(kind):
    return VAE(event_shape=(5,)).to_json().replace('"MLP"', f'"{kind}"')


def test_a_class_in_a_file_loads_by_its_path_and_only_then(my_file):
    text = text_with("my_programs:Doubled")
    with pytest.raises(SpecError) as raised:
        Program.from_json(text)
    assert "my_programs" not in sys.modules  # text alone imports nothing
    for word in ("my_programs:Doubled", "classes=[Doubled]", "classes=['my_programs:Doubled']"):
        assert word in str(raised.value)
    program = Program.from_json(text, classes=["my_programs:Doubled"])
    assert type(program.encoder) is sys.modules["my_programs"].Doubled
    assert program.encoder.times == 2


def test_a_class_loads_when_handed_in_also_from_another_home():
    for home in ("programs", "__main__", "an.older.place"):
        text = VAE(event_shape=(5,), posterior=Coupling()).to_json().replace("programs:", f"{home}:")
        assert Program.from_json(text, classes=[Coupling]).posterior == Coupling()
    with pytest.raises(SpecError, match=r"an\.older\.place:Coupling"):
        Program.from_json(text)


def test_a_class_of_ones_own_never_stands_in_for_one_of_ppdgm(my_file):
    ours = VAE(event_shape=(5,))
    back = Program.from_toml(ours.to_toml(), classes=["my_programs:VAE"])
    assert type(back) is VAE
    mine = sys.modules["my_programs"].VAE(event_shape=(5,), extra=1)
    assert Program.from_json(mine.to_json(), classes=["my_programs:VAE"]) == mine
    assert mine.replace(extra=0) != ours


def test_a_module_can_not_be_read_back_from_text():
    text = VAE(event_shape=(5,), encoder=torch.nn.Linear(5, 100)).to_json()
    with pytest.raises(SpecError, match=r"ForeignNet\.module: got 'Linear'; expected the module itself"):
        Program.from_json(text)


# --- records -------------------------------------------------------------------------------------------------------


@every_program
def test_immutable(name):
    program = PROGRAMS[name]()
    before = program.to_json()
    for field in (*type(program).model_fields, "something_else"):
        with pytest.raises(SpecError, match=rf"immutable.*\.replace\({field}="):
            setattr(program, field, 3)
    assert program.to_json() == before


def test_equality_is_of_class_and_fields():
    programs = [make() for make in PROGRAMS.values()]
    assert len(set(programs)) == len(programs)
    assert {p: i for i, p in enumerate(programs)}[PROGRAMS["vae coupling"]()] == list(PROGRAMS).index("vae coupling")
    assert MLP(hidden=[3, 4]) == MLP(hidden=(3, 4)) != MLP(hidden=(4, 3))
    assert MLP() != GatedMLP()
    assert VAE(event_shape=(5,)) != VAE(event_shape=(5,), likelihood=Gaussian())
    assert VAE(event_shape=(5,), latent=np.int64(4)) == VAE(event_shape=(5,), latent=4)


def test_replace_copies_and_checks():
    net = MLP(hidden=(3,))
    assert net.replace(activation="relu") == MLP(hidden=(3,), activation="relu")
    assert net == MLP(hidden=(3,))
    with pytest.raises(SpecError, match="MLP has no field 'width'"):
        net.replace(width=3)


# --- what is said of a wrong field: the field, what was got, what is allowed ----------------------------------------

MISTAKES = {
    "unknown": (lambda: VAE(event_shape=(5,), latnet=3), ["VAE has no field 'latnet'", "Did you mean 'latent'?"]),
    "far off": (lambda: MLP(colour=3), ["MLP has no field 'colour'", "activation, dropout, hidden, norm"]),
    "missing": (lambda: VAE(latent=3), ["VAE.event_shape is missing"]),
    "not positive": (lambda: VAE(event_shape=(5,), latent=0), ["VAE.latent", "got 0", "greater than 0"]),
    "not whole": (lambda: VAE(event_shape=(5,), latent=2.5), ["VAE.latent", "got 2.5", "whole number"]),
    "a number as text": (lambda: VAE(event_shape=(5,), latent="2"), ["VAE.latent", "got '2'", "whole number"]),
    "a number for a shape": (lambda: VAE(event_shape=5), ["VAE.event_shape", "got 5", "tuple"]),
    "in a shape": (lambda: VAE(event_shape=(5, 0)), ["VAE.event_shape", "got 0", "greater than 0"]),
    "a part of another kind": (
        lambda: VAE(event_shape=(5,), prior=Bernoulli()),
        ["VAE.prior", "got Bernoulli()", "a Prior, such as StandardNormal()"],
    ),
    "a class for an instance": (
        lambda: VAE(event_shape=(5,), prior=StandardNormal),
        ["VAE.prior", "got <class", "such as StandardNormal()"],
    ),
    "a name for a net": (
        lambda: VAE(event_shape=(5,), encoder="MLP"),
        ["VAE.encoder", "got 'MLP'", "expected a Net, such as ", "MLP()"],
    ),
    "a word": (lambda: MLP(activation="tanhh"), ["MLP.activation", "got 'tanhh'", "'tanh', 'relu'"]),
    "a word or nothing": (lambda: MLP(norm="group"), ["MLP.norm", "got 'group'", "'layer' or 'batch' or None"]),
    "a number or a word": (
        lambda: Gaussian(scale="lerned"),
        ["Gaussian.scale", "got 'lerned'", "number or 'learned', 'per_dimension' or 'network'"],
    ),
    "negative": (lambda: Gaussian(scale=-1.0), ["Gaussian.scale", "got -1.0", "greater than 0 or 'learned'"]),
    "not finite": (lambda: DiagonalNormal(min_scale=float("inf")), ["DiagonalNormal.min_scale", "inf", "finite"]),
    "of an engine": (lambda: SVI(kl="exact"), ["SVI.kl", "got 'exact'", "'auto', 'monte_carlo' or 'analytic'"]),
    "two at once": (
        lambda: PPCA(event_shape=(4,), latent=-1, posterior="full"),
        ["PPCA.latent: got -1", "PPCA.posterior: got 'full'; expected 'exact' or 'linear'"],
    ),
    "in a replacement": (lambda: MLP().replace(hidden=(3, -1)), ["MLP.hidden", "got -1", "greater than 0"]),
    "within a table": (
        lambda: Program.from_json('{"kind": "VAE", "event_shape": [3], "encoder": {"kind": "MLP", "hiden": [3]}}'),
        ["MLP has no field 'hiden'", "Did you mean 'hidden'?"],
    ),
    "a table without a kind": (lambda: Net.from_json('{"hidden": [3]}'), ["without a kind", "{'hidden': [3]}"]),
    "an unknown kind": (lambda: Net.from_json('{"kind": "MPL"}'), ["'MPL'", "Did you mean 'MLP'?"]),
    "a kind of another family": (lambda: Net.from_toml('kind = "Gaussian"'), ["Gaussian", "expected a Net"]),
    "a path to nowhere": (
        lambda: Net.from_json('{"kind": "nowhere:Mine"}', classes=["nowhere:Mine"]),
        ["'nowhere:Mine'", "No module named 'nowhere'"],
    ),
    "a path to another thing": (
        lambda: Net.from_json('{"kind": "math:pi"}', classes=["math:pi"]),
        ["'math:pi' is not a spec"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    call, words = MISTAKES[case]
    with pytest.raises(SpecError) as raised:
        call()
    for word in words:
        assert word in str(raised.value)
    assert "_Convolutional" not in str(raised.value)  # nor any name that users don't write


def test_a_class_that_lacks_a_method_is_named():
    class Unfinished(Prior):
        pass

    with pytest.raises(SpecError, match="Unfinished is a base class: it has no distribution"):
        Unfinished()


class Listed(MLP):
    sizes: list[int] = [3]  # noqa: RUF012  # what is refused


def test_values_that_can_change_are_refused():
    with pytest.raises(
        SpecError,
        match=r"Listed.sizes: got \[3\] as the default, expected a value that can't change.*Annotate the field",
    ):
        Listed()
    with pytest.raises(SpecError, match=r"Listed.sizes: got \(4,\); expected a tuple"):
        Listed(sizes=[4])


TAKEN = [  # every name that a base class of ppdgm's has, but what Python itself takes from a class's body
    (base, name)
    for base in (Program, Prior, Net, SVI)
    for name in dir(base)
    if name not in base.model_fields and name not in ("__annotations__", "__slots__")
]


def test_a_field_with_the_name_of_a_method_is_refused():
    """Its value would stand where ppdgm calls the method."""
    for base, name in TAKEN:
        for default in ({}, {name: 3}):
            if default and name == "model_config":  # pydantic's own way to configure a class
                continue
            body = {"__annotations__": {name: int}, "__module__": __name__, **default}
            with pytest.raises(SpecError, match=rf"Mine\.{name}: .*name is taken .*Give the field another name"):
                type(base)("Mine", (base,), body)
    assert {(Program, n) for n in ("kind", "check", "to_dict", "declarations", "initialise", "model")} <= {*TAKEN}


@pytest.mark.parametrize("name", ["self", "cls", "data", "positional", "fields", "model_x", "P"])
def test_any_other_name_is_a_field(name):
    mine = type(Program)("Mine", (Program,), {"__annotations__": {name: int}, "__module__": __name__})
    made = mine(**{name: 2})
    assert getattr(made, name) == 2 and mine.from_dict(made.to_dict(), classes=[mine]) == made
    assert made.replace(**{name: 3}).to_dict()[name] == 3


def test_fields_of_fields_and_of_classes_can_be_narrowed():
    class Two(VAE):
        latent: int = 2

    class Point(Prior):
        mean_is_a_point: ClassVar[bool] = True

    assert Two(event_shape=(3,)).latent == 2 and Point.mean_is_a_point
    with pytest.raises(SpecError, match=r"Two has no field '_x'.*start with a letter"):
        Two(event_shape=(3,), _x=1)
