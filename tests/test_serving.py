"""Parts of a program in files: without ppdgm, they give the numbers of the fit, for any number of rows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ppdgm
from ppdgm.errors import CheckpointError, PpdgmError, ProgramError, SpecError, UnsupportedByBackend
from ppdgm.models import (
    IAF,
    MLP,
    VAE,
    AutoregressiveModel,
    CategoricalPrior,
    ConditionalVAE,
    ConvDecoder,
    ConvEncoder,
    FlowModel,
    FlowPosterior,
    Gaussian,
    GumbelSoftmax,
    HierarchicalVAE,
    Poisson,
    RealNVP,
    VampPrior,
)

torch = pytest.importorskip("torch")

IMAGE, NETS = (1, 8, 8), {"encoder": MLP(hidden=(8,)), "decoder": MLP(hidden=(8,))}
SMALL = MLP(hidden=(6,))
PROGRAMS = {
    "mlp": VAE(event_shape=(5,), latent=2, **NETS),
    "conv": VAE(event_shape=IMAGE, latent=2, encoder=ConvEncoder(), decoder=ConvDecoder()),
    "vamp": VAE(
        event_shape=(5,),
        latent=2,
        prior=VampPrior(components=3),
        posterior=FlowPosterior(flow=IAF(depth=2, hidden=(6,))),
        **NETS,
    ),
    "ladder": HierarchicalVAE(event_shape=(5,), latent=(3, 2)),
    "conditional": ConditionalVAE(event_shape=(5,), classes=4, latent=2, **NETS),
    "grid": VAE(event_shape=(5,), latent=(2,), prior=CategoricalPrior(), posterior=GumbelSoftmax(classes=3), **NETS),
    "flow": FlowModel(event_shape=(4,), flow=RealNVP(depth=2, hidden=(6,))),
    "autoregressive": AutoregressiveModel(event_shape=(5,)),
}
WITHOUT_LATENTS = ("flow", "autoregressive")
BACKENDS = {"pt2": "pyro", "onnx": "pyro", "jax": "numpyro"}

# A process that knows only the library of the format. It reads arrays, and writes what the file makes of them.
CALL = """
import json, sys
import numpy as np
file, given, out = sys.argv[1:]
page, arrays = json.load(open(file + ".json")), dict(np.load(given))
names, outputs = [i["name"] for i in page["inputs"]], [o["name"] for o in page["outputs"]]
batches = sorted({n.rpartition("@")[2] for n in arrays})
load = lambda b: {n: arrays[f"{n}@{b}"] for n in names}
if page["format"] == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(file)
    run = lambda a: dict(zip(outputs, session.run(outputs, a)))
elif page["format"] == "pt2":
    import torch
    module = torch.export.load(file).module()
    run = lambda a: dict(zip(outputs, (v.numpy() for v in module(*(torch.tensor(a[n]) for n in names)))))
else:
    import jax.export
    called = jax.export.deserialize(bytearray(open(file, "rb").read()))
    run = lambda a: {n: np.asarray(v) for n, v in called.call(a).items()}
np.savez(out, **{f"{n}@{b}": v for b in batches for n, v in run(load(b)).items()})
assert not [m for m in sys.modules if m.startswith("ppdgm")]
"""


def fit_of(name, backend):
    """A fit whose parameters are no first values: biases and last layers would be zeros."""
    program, rng = PROGRAMS[name], np.random.default_rng(1)
    params = {n: v + 0.1 * rng.normal(size=v.shape).astype(v.dtype) for n, v in program.initialise(0).items()}
    labelled = {"fields": ["x", "label"], "shapes": {"x": [5], "label": []}} if name == "conditional" else {}
    return ppdgm.Fit(program, params, backend, info=labelled)


def rows(name, n):
    rng, shape = np.random.default_rng(n), PROGRAMS[name].event_shape
    x = rng.normal(size=(n, *shape)) if name == "flow" else rng.random((n, *shape)) < 0.5
    fields = {"x": x.astype("float32")}
    return fields | ({"label": rng.integers(0, 4, n)} if name == "conditional" else {})


def called(path, batches, tmp_path):
    """What the file makes of each batch of arrays, in a process of its own."""
    given, out = tmp_path / "given.npz", tmp_path / "out.npz"
    np.savez(given, **{f"{n}@{i}": v for i, b in enumerate(batches) for n, v in b.items()})
    done = subprocess.run(
        [sys.executable, "-c", CALL, path, given, out], cwd=tmp_path, capture_output=True, text=True, env=bare()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(out)
    return [{n[: -len(f"@{i}")]: found[n] for n in found if n.endswith(f"@{i}")} for i in range(len(batches))]


def bare():
    import os

    return {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}


def typed(path, arrays):
    page = json.loads((path.parent / f"{path.name}.json").read_text())
    return {i["name"]: np.asarray(arrays[i["name"]], i["dtype"]) for i in page["inputs"] if i["name"] in arrays}


def by_name(values, only):
    return values if isinstance(values, dict) else {only: values}


CASES = [(n, f) for n in PROGRAMS for f in BACKENDS]


@pytest.mark.parametrize("name, format", [c for c in CASES if c[0] not in WITHOUT_LATENTS])
def test_encoder_and_decoder(name, format, tmp_path):
    fit, sizes = fit_of(name, BACKENDS[format]), (1, 4, 7)
    data = [rows(name, n) for n in sizes]
    encoder = fit.export(tmp_path / f"encoder.{format}", "encoder")
    for given, found in zip(data, called(encoder, [typed(encoder, d) for d in data], tmp_path), strict=True):
        expected = by_name(fit.encode(given), "z")
        assert found.keys() == expected.keys()
        for n, v in expected.items():
            np.testing.assert_allclose(found[n], v, rtol=1e-5, atol=1e-5)
    decoder = fit.export(tmp_path / f"decoder.{format}", "decoder")
    shapes, rng = dict(sorted(fit._latents(data[1] if name == "conditional" else {}).items())), np.random.default_rng(0)
    codes = [{n: rng.normal(size=(b, *s)).astype("float32") for n, s in shapes.items()} for b in sizes]
    if name == "grid":  # log one-hot vectors, as its draws are
        codes = [
            {n: np.where(np.eye(3)[v.argmax(-1)] > 0, 0.0, -1e4).astype("float32") for n, v in c.items()} for c in codes
        ]
    labels = [{n: v for n, v in d.items() if n == "label"} for d in data]
    inputs = [typed(decoder, {**z, **y}) for z, y in zip(codes, labels, strict=True)]
    for z, y, found in zip(codes, labels, called(decoder, inputs, tmp_path), strict=True):
        expected = fit.decode(z, given=y or None)
        np.testing.assert_allclose(found["x"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, format", CASES)
def test_elbo(name, format, tmp_path):
    """At the latents that it drew, by the other backend; on JAX it is also that of the fit, of the same key."""
    fit, k = fit_of(name, BACKENDS[format]), 2
    path = fit.export(tmp_path / f"elbo.{format}", "elbo", k=k)
    noises = [i for i in json.loads((tmp_path / f"elbo.{format}.json").read_text())["inputs"] if "noise" in i]
    assert bool(noises) == (name not in WITHOUT_LATENTS)
    data, rng = [rows(name, n) for n in (1, 4, 7)], np.random.default_rng(0)
    inputs = [typed(path, given) | {i["name"]: noise(i, len(given["x"]), rng) for i in noises} for given in data]
    other = next(b for b in ("numpyro", "pyro") if b != BACKENDS[format])
    for given, found in zip(data, called(path, inputs, tmp_path), strict=True):
        values = {n: v for n, v in found.items() if n != "elbo"}
        trace = ppdgm.trace(fit.program, fit.params, given, k if values else 1, other, values=values or None, kl=True)
        apart = sum(v for n, v in trace.log_p.items() if n not in trace.kl)
        apart = apart - sum(v for n, v in trace.log_q.items() if n not in trace.kl)
        expected = (apart - sum(v.sum(-1) for v in trace.kl.values())).mean(0)
        np.testing.assert_allclose(found["elbo"], expected, rtol=1e-5, atol=2e-5)
        if format == "jax":
            np.testing.assert_allclose(found["elbo"], fit.elbo(given, k=k, seed=3).values, rtol=1e-5, atol=1e-5)


def noise(told, rows, rng):
    if told["noise"] == "key":
        import jax

        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), 0)  # of the seed 3, and the first chunk
        return np.asarray(jax.random.key_data(key))
    shape = [rows if n == "batch" else n for n in told["shape"]]
    return (rng.normal(size=shape) if told["noise"] == "normal" else rng.uniform(size=shape)).astype("float32")


@pytest.mark.parametrize("format", ["pt2", "jax"])
def test_units_are_the_users_own(format, tmp_path):
    x = np.random.default_rng(0).normal(7.0, 3.0, (30, 2)).astype("float32")
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    data = ppdgm.load_data(tmp_path / "x.csv", scale="standardise")
    program = VAE(event_shape=(2,), latent=1, likelihood=Gaussian(), encoder=SMALL, decoder=SMALL)
    fit = ppdgm.fit(program, data.train, steps=2, backend=BACKENDS[format], progress=False)
    encoder, decoder = (fit.export(tmp_path / f"{w}.{format}", w) for w in ("encoder", "decoder"))
    prepared = fit.export(tmp_path / f"prepared.{format}", "encoder", units="prepared")
    z = called(encoder, [{"x": x}], tmp_path)[0]["z"]
    np.testing.assert_allclose(z, fit.encode(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(called(decoder, [{"z": z}], tmp_path)[0]["x"], fit.decode(z), rtol=1e-5)
    own = np.asarray(fit.prepare(x, units="own"), "float32")
    np.testing.assert_allclose(called(prepared, [{"x": own}], tmp_path)[0]["z"], z, rtol=1e-4, atol=1e-5)


def test_refused(tmp_path):
    fit = fit_of("mlp", "pyro")
    for error, told, how in (
        (SpecError, r"ends with \.pt2, \.onnx or \.jax", {"path": tmp_path / "a.zip"}),
        (UnsupportedByBackend, r"on the numpyro backend.*load\(out, backend='numpyro'\)", {"path": tmp_path / "a.jax"}),
        (PpdgmError, "what: got 'code'", {"what": "code"}),
        (SpecError, "k: got 3, but the decoder draws nothing", {"k": 3}),
        (SpecError, "types: got a field 'y'", {"what": "encoder", "types": {"y": "int64"}}),
        (PpdgmError, "units", {"units": "raw"}),
    ):
        with pytest.raises(error, match=told):
            fit.export(**{"path": tmp_path / "a.pt2", **how})
    for name in WITHOUT_LATENTS:
        with pytest.raises(ProgramError, match="has no latents"):
            fit_of(name, "numpyro").export(tmp_path / "a.jax", "decoder")
    pair = ppdgm.Program.from_pyro(lambda x: None, lambda x: None)
    with pytest.raises(UnsupportedByBackend, match="plain pair"):
        ppdgm.Fit(pair, {}, "pyro").export(tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(CheckpointError, match="exists"):
        fit.export(tmp_path / "a.pt2")


def test_draws_that_are_no_function_of_noise(tmp_path):
    """Such as those by rejection: how many numbers they take is not known before."""
    from ppdgm.models import DiagonalGamma, GammaPrior

    program = VAE(event_shape=(5,), latent=2, prior=GammaPrior(), posterior=DiagonalGamma(), **NETS)
    fit = ppdgm.Fit(program, program.initialise(0), "pyro")
    with pytest.raises(UnsupportedByBackend, match=r"draws with torch's _standard_gamma.*encoder or the decoder"):
        fit.export(tmp_path / "a.pt2", "elbo")


def test_the_command_line(tmp_path):
    from typer.testing import CliRunner

    from ppdgm.cli.app import app

    run = str(fit_of("mlp", "numpyro").save(tmp_path / "run"))
    out = tmp_path / "decoder.pt2"  # a run of the other backend
    found = CliRunner().invoke(app, ["export", run, "--what", "decoder", "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    z = np.zeros((3, 2), "float32")
    expected = ppdgm.load(run).decode(z)
    np.testing.assert_allclose(called(out, [{"z": z}], tmp_path)[0]["x"], expected, rtol=1e-5, atol=1e-5)
    for arguments, told in (
        (["--out", "a.zip"], ".pt2"),
        (["--what", "code"], "Did you mean"),
        (["--out", str(out)], "exists"),
    ):
        found = CliRunner().invoke(app, ["export", run, *arguments])
        assert found.exit_code and told in found.output, found.output


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})


def test_an_exposure_is_a_real_number(tmp_path):
    """A size factor of 0.7 that was given as a whole number would be 0."""
    x = np.random.default_rng(0).poisson(3.0, (20, 4))
    program = VAE(event_shape=(4,), latent=1, likelihood=Poisson(exposure=True), **NETS)
    fit = ppdgm.fit(program, {"x": x, "exposure": np.full(20, 0.7)}, steps=1, backend="pyro", progress=False)
    fit.export(tmp_path / "decoder.pt2", "decoder")
    inputs = json.loads((tmp_path / "decoder.pt2.json").read_text(encoding="utf-8"))["inputs"]
    found = {i["name"]: i["dtype"] for i in inputs}
    assert found["exposure"] == "float32"
