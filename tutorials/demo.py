"""The main job, from data to evaluation; `make demo` runs it. It takes about a minute on two cores."""

import os
import sys
from pathlib import Path

import ppdgm
from ppdgm.models import MLP, VAE
from ppdgm.plots import picture

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick run, as in the test suite
OUT = Path("runs/demo")

data = ppdgm.load_data("digits")
net = MLP(hidden=(200, 200))
program = VAE(event_shape=data.event_shape, latent=16, encoder=net, decoder=net)
print(f"Training a VAE on {len(data.train)} binarised digits of 8×8 pixels (numpyro backend).")
fit = ppdgm.fit(
    program,
    data,  # training data, and validation data after each epoch
    epochs=3 if SMALL else 400,
    batch_size=100,
    early_stopping=100,
    seed=0,
    out=OUT,
    overwrite=True,
)

print("Evaluating it on the test data …")
print(f"  test ELBO             {fit.elbo(data.test)}")
print(f"  test log-likelihood   {fit.log_likelihood(data.test, k=100 if SMALL else 5000)}")

png = picture(
    OUT / "pictures" / "reconstructions.png", fit.sample(64, mean=True), data.test[:32], fit.reconstruct(data.test[:32])
)
python = os.path.relpath(sys.executable) if sys.executable.startswith(str(Path.cwd())) else "python"
print(f"""
Written to {OUT}/: the recipe, the trained weights, checkpoints, history.csv, log.txt, and pictures. Look at
  {png}
  {OUT / "pictures" / "history.png"}

What next?
  {python} tutorials/first_vae.py     what these numbers mean, with a picture of the training
  {python} -m ppdgm sample {OUT} --out samples.png     new digits, drawn from the model
  {python} -m ppdgm fit --help     the same from the command line: train, resume, evaluate
  make test     installs the Pyro backend too, and runs every test; then
  {python} tutorials/bring_your_own_pair.py     trains a plain Pyro and a plain NumPyro pair""")
