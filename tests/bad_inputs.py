"""A folder of what can be wrong: data, recipes, programs and runs; each file is named after its mistake."""

import shutil
import struct
import zipfile

import numpy as np
from PIL import Image

import ppdgm
from ppdgm.models import MLP, VAE

RNG = np.random.default_rng(0)
BITS = (RNG.random((40, 5)) < 0.4).astype("float32")
GREY = RNG.random((40, 5)).astype("float32")


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


ARRAYS = {
    "bits": BITS,
    "grey": GREY,
    "wide": np.tile(BITS, 2),
    "counts": np.arange(60.0).reshape(20, 3) + 2,
    "nan": changed(GREY, (7, 2), np.nan),
    "inf": changed(GREY, (3, 1), np.inf),
    "empty": np.empty((0, 5)),
    "number": np.float64(3),
    "objects": np.array([{}, 1], object),
    "words": np.array(["a", "b"]),
    "complex": BITS + 1j,
    "pair": BITS[:2],
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "records": np.zeros(2, [("a", "f4")]),
}
NAMED = {
    "lengths": {"x": BITS, "label": np.arange(7)},
    "masked": {"x": BITS, "mask": np.ones(40)},
    "strangers": {"a": BITS, "b": BITS},
    "labelled": {"x": BITS, "label": np.arange(40) % 3},
    "unlabelled": {"x": BITS, "label": np.where(np.arange(40) > 3, np.inf, 1.0)},
    "sparse": {"data": BITS[0], "indices": np.arange(5), "indptr": np.arange(2), "format": b"csr", "shape": (1, 5)},
}
OTHERS = {  # files of other programs, and what to do with them
    ".pt": "torch.load(path).numpy()",
    ".pkl": "open it yourself and save its rows",
    ".feather": "pandas.read_feather(path).to_parquet(",
    ".xlsx": "pandas.read_excel(path).to_csv(",
    ".json": "pandas.read_json(path).to_csv(",
    ".h5": "h5py.File(path)",
    ".mat": "scipy.io.loadmat(path)",
    ".mtx": "scipy.io.mmread(path).toarray()",
    ".safetensors": "safetensors.numpy.load_file(path)",
    ".rds": "Export it as .csv",
    ".txt": "name it .csv",
    ".csv.zip": "Unpack it first",
    ".npy.gz": "Unpack it first",
    ".png": "Give its folder",
}
TEXTS = {
    "words.csv": "a,b\n1,2\n3,four\n",
    "missing.csv": "a,b\n1,2\n,4\n",
    "ragged.csv": "a,b\n1,2\n3\n",
    "nothing.csv": "",
    "header.csv": "a,b\n",
    "classes.csv": "a,b,species\n0,1,u\n1,1,v\n",
    "table_unlabelled.csv": "a,b,label\n0,1,u\n1,1,\n1,0,u\n1,1,v\n",
    "bare.csv": "0.5,1.5\n1.5,2.5\n",
    "table.csv.gz": "a,b\n1,2\n",
    **{f"rows{ending}": "PK" for ending in OTHERS},
    "thesis/thesis.txt": "important",
}
DATA = '[data]\nname = "bits.npy"\n'
VAE_OF_BITS = f'{DATA}[program]\nkind = "VAE"\n'
RECIPES = {
    "broken": "x = [",
    "empty": "",
    "no_program": DATA,
    "no_kind": f"{DATA}[program]\nlatent = 3\n",
    "number": f"program = 3\n{DATA}",
    "list": f'program = [{{kind = "VAE"}}]\n{DATA}',
    "table": f"{VAE_OF_BITS}[trainig]\nsteps = 1\n",
    "key": f"{VAE_OF_BITS}latnet = 3\n",
    "kind": f'{DATA}[program]\nkind = "VEA"\n',
    "kind_list": f'{DATA}[program]\nkind = ["VAE"]\n',
    "family": f'{VAE_OF_BITS}encoder = {{kind = "Net"}}\n',
    "schedule": f'{VAE_OF_BITS}[training]\nsteps = 9\nlearning_rate = {{kind = "Schedule"}}\n',
    "engine": f'{VAE_OF_BITS}[engine]\nkind = "Engine"\n',
    "engine_of_nets": f'{VAE_OF_BITS}[engine]\nkind = "MLP"\n',
    "net": f'{DATA}[program]\nkind = "MLP"\n',
    "likelihood_for_prior": f'{VAE_OF_BITS}prior = {{kind = "Bernoulli"}}\n',
    "net_in_list": f'{VAE_OF_BITS}encoder = [{{kind = "MLP"}}]\n',
    "kindless": f"{VAE_OF_BITS}latent = {{a = 3}}\n",
    "nested": f"{VAE_OF_BITS}[program.encoder.hidden]\na = 1\n",
    "date": f"{VAE_OF_BITS}[training]\nsteps = 1979-05-27\n",
    "truth": f"{VAE_OF_BITS}[training]\nsteps = true\n",
    "both": f"{VAE_OF_BITS}[training]\nsteps = 1\nepochs = 1\n",
    "newer": f"format = 99\n{VAE_OF_BITS}",
    "older": f"format = 1\n{VAE_OF_BITS}",
    "backend": f'backend = "torch"\n{VAE_OF_BITS}',
    "name": '[data]\nname = 3\n[program]\nkind = "VAE"\n',
    "no_name": '[data]\nname = ""\n[program]\nkind = "VAE"\n',
    "source": '[data]\nkind = "MLP"\nname = "bits.npy"\n[program]\nkind = "VAE"\n',
    "own": f'{DATA}[program]\nkind = "my_own:Mine"\n',
    "plain_pair": f'{DATA}[program]\nkind = "plain:pyro"\n',
    "module": f'{VAE_OF_BITS}encoder = {{kind = "ForeignNet"}}\n',
    "own_optimiser": f'{VAE_OF_BITS}[training]\nsteps = 1\noptimiser = "own"\n',
}
START = "from ppdgm import Program\nfrom ppdgm.models import MLP\n\n\n"
BUILD = """class Mine(Program):
    event_shape: tuple[int, ...] = (5,)

    def build(self, c):
        c.net("decoder", MLP(hidden=(4,)), (2,), self.event_shape)
        c.net("encoder", MLP(hidden=(4,)), self.event_shape, (2, 2))

"""
MODEL = """    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.sample("x", P.dist.Bernoulli(logits=P.net("decoder")(z)).to_event(1), obs=x)

"""
GUIDE = """    def guide(self, P, x):
        with P.plate("data", x):
            h = P.net("encoder")(x)
            P.sample("z", P.dist.Normal(h[..., 0, :], P.softplus(h[..., 1, :])).to_event(1))
"""
PROGRAMS = {
    "right_one": START + BUILD + MODEL + GUIDE,
    "syntax_error": "def f(:\n",
    "raises_error": "x = 1\ny = x / 0\n",
    "exits_early": "import sys\nsys.exit(0)\n",
    "imports_missing": "import no_such_package\n",
    "no_program_here": "x = 1\n",
    "two_programs": f"{START}class A(Program):\n    n: int = 1\n\n\nclass B(Program):\n    n: int = 1\n",
    "a_list": "mine = [1]\n",
    "untyped_field": f"{START}class Mine(Program):\n    latent = 3\n",
    "taken_name": f"{START}class Mine(Program):\n    check: int = 3\n",
    "unknown_type": f"{START}class Mine(Program):\n    latent: 'NoSuchType' = 3\n",
    "few_arguments": f"{START}class Mine(Program):\n    def model(self):\n        pass\n",
    "no_guide": START + BUILD + MODEL,
    "no_plate": START + BUILD + MODEL + GUIDE.replace('with P.plate("data", x):', "if True:"),
    "no_event": START + BUILD + MODEL + GUIDE.replace(".to_event(1)", ""),
    "another_site": START + BUILD + MODEL + GUIDE.replace('"z"', '"w"'),
    "negative_scale": START + BUILD + MODEL + GUIDE.replace("P.softplus(h[..., 1, :])", "-P.xp.exp(h[..., 1, :])"),
    "wrong_shape": START + BUILD.replace("(2,)", "2") + MODEL + GUIDE,
    "fails_in_build": START + BUILD.replace("        c.net", "        1 / 0\n        c.net", 1) + MODEL + GUIDE,
    "fails_in_model": START
    + BUILD
    + MODEL.replace("            z =", "            P.nothing\n            z =")
    + GUIDE,
}


def flip(path, place=-10):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def last_checkpoint(run):
    return sorted((run / "checkpoints").iterdir())[-1]


RUNS = {  # what is done to a run that was whole
    "damaged": lambda run: flip(run / "weights.safetensors"),
    "garbage": lambda run: (run / "weights.safetensors").write_bytes(b"PK\3\4" + bytes(100)),
    "last_damaged": lambda run: flip(last_checkpoint(run)),
    "all_damaged": lambda run: [cut(f) for f in (run / "checkpoints").iterdir()],
    "changed": lambda run: replace(run / "recipe.toml", "latent = 2", "latent = 3"),
    "from_the_future": lambda run: replace(run / "recipe.toml", "format = 2", "format = 99"),
    "unreadable": lambda run: (run / "recipe.toml").write_text("x = ["),
    "without_recipe": lambda run: (run / "recipe.toml").unlink(),
    "without_checkpoints": lambda run: [f.unlink() for f in (run / "checkpoints").iterdir()],
    "odd_status": lambda run: (run / "status.json").write_text("[1, 2]"),
}


def build(here):
    """Write everything to the folder `here`, which is the current one."""
    for name, array in ARRAYS.items():
        np.save(f"{name}.npy", array, allow_pickle=True)
    for name, arrays in NAMED.items():
        np.savez(f"{name}.npz", **arrays)
    texts = {**TEXTS, **{f"{n}.toml": t for n, t in RECIPES.items()}, **{f"{n}.py": t for n, t in PROGRAMS.items()}}
    for name, text in texts.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    (here / "binary.toml").write_bytes(b"\xff\xfe\0\1")
    (here / "binary.py").write_bytes(b"\xff\xfe\0")
    (here / "folder.toml").mkdir()
    (here / "cut-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 9, 4, 4) + bytes(20))
    (here / "packed-idx3-ubyte.gz").write_bytes(b"not gzip")
    (here / "half.npz").write_bytes((here / "labelled.npz").read_bytes()[:300])
    (here / "picture.bin").write_bytes(b"\x89PNG")
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10**6))
    (here / "images").mkdir()
    for i, size in enumerate((4, 4, 5)):
        Image.fromarray(np.zeros((size, size), np.uint8)).save(f"images/{i}.png")
    program = VAE(event_shape=(5,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    data = ppdgm.load_data("bits.npy")
    ppdgm.fit(
        program, data, steps=4, checkpoint_steps=2, backend="pyro", compile=False, progress=False, out="whole"
    )  # fmt: skip
    shutil.rmtree("whole/pictures")
    ppdgm.fit(program, BITS, steps=2, backend="pyro", compile=False, progress=False, out="without_data")
    shutil.rmtree("without_data/pictures")
    for name, damage in RUNS.items():
        shutil.copytree("whole", name)
        damage(here / name)
