# %% [markdown]
# # Missing data
#
# A VAE with the likelihood `Table` is trained on the entries that are there: log p(x_observed), whatever pattern the
# gaps have. Then it fills in the gaps: by draws, by best guesses, with intervals.

# %%
import os
from pathlib import Path

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine

import ppdgm
from ppdgm.inference import IWAE
from ppdgm.models import MLP, VAE, Table

wine = load_wine(as_frame=True)
whole = wine.data.iloc[:, [0, 6, 9, 12]].set_axis(["alcohol", "flavanoids", "colour", "proline"], axis=1)
whole["proline"] = whole["proline"].astype(int)
whole["grape"] = np.array(["A", "B", "C"])[wine.target]  # a column of names
rng = np.random.default_rng(0)
gaps = rng.random(whole.shape) < 0.3
seen = whole.mask(gaps)
print(seen.head().to_string())

# %% [markdown]
# The kinds of the columns are found in the data, and can be told: proline is whole, but no count of events.

# %%
nets = {"encoder": MLP(hidden=(32,)), "decoder": MLP(hidden=(32,))}
program = VAE(event_shape=(5,), latent=3, likelihood=Table(columns=("proline: positive",)), **nets)
fit = ppdgm.fit(program, seen, engine=IWAE(k=20), epochs=5 if SMALL else 400, learning_rate=3e-3, progress=False)
print(fit.program.likelihood.columns)
print("log p of the observed entries:", fit.log_likelihood(seen, k=50 if SMALL else 1000))

# %% [markdown]
# ## A best guess
#
# `mean=True` gives E[x_missing | x_observed], and the most probable class. It has the least squared error.

# %%
k = 50 if SMALL else 1000
guess = fit.impute(seen, mean=True, k=k)
print("rms error in standard deviations      guess    column mean")
for name in ("alcohol", "flavanoids", "colour", "proline"):
    gap = seen[name].isna()
    squares = [((v - whole[name])[gap] ** 2).mean() for v in (guess[name], seen[name].mean())]
    errors = np.sqrt(squares) / whole[name].std()
    print(f"{name:36s}{errors[0]:8.2f}{errors[1]:12.2f}")
gap = seen["grape"].isna()
most = seen["grape"].mode()[0]
right = [(v == whole["grape"])[gap].mean() for v in (guess["grape"], most)]
print(f"grape: {right[0]:.0%} of the guesses are right, {right[1]:.0%} of guessing {most!r}")

# %% [markdown]
# ## A guess is not a draw
#
# A table that is filled with guesses varies too little, and its correlations are too strong. `impute` without `mean=`
# draws each missing entry, so that the table looks like data.

# %%
drawn = fit.impute(seen, k=k)
print("standard deviation of the entries that were missing")
for name in ("alcohol", "flavanoids", "colour"):
    gap = seen[name].isna()
    spreads = [v[name][gap].std() for v in (whole, drawn, guess)]
    print(f"{name:12s} true {spreads[0]:.2f}   drawn {spreads[1]:.2f}   guessed {spreads[2]:.2f}")

# %% [markdown]
# ## How sure is it?
#
# Intervals contain both what the latents leave open and the noise of the column.

# %%
low, high = fit.impute(seen, interval=0.8, k=k)
inside = [((low[n] <= whole[n]) & (whole[n] <= high[n]))[seen[n].isna()].mean() for n in list(whole)[:4]]
print(f"in the 80 % interval: {np.mean(inside):.0%} of the missing numbers")

# %% [markdown]
# ## Several tables
#
# For an analysis of the filled table, do it for several draws, and add the variance between them (Rubin 1987).

# %%
tables = fit.impute(seen, draws=10, k=k)
means = np.array([t["alcohol"].mean() for t in tables])
within = np.mean([t["alcohol"].var() / len(t) for t in tables])
total = within + (1 + 1 / len(means)) * means.var(ddof=1)
print(f"mean alcohol: {means.mean():.3f} ± {total**0.5:.3f}; the whole table has {whole['alcohol'].mean():.3f}")
assert isinstance(tables[0], pd.DataFrame)

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True)
some = seen["flavanoids"].isna() | seen["colour"].isna()
for panel, (name, table) in zip(panels, {"true": whole, "drawn": drawn, "guessed": guess}.items(), strict=True):
    panel.scatter(*table.loc[~some, ["flavanoids", "colour"]].to_numpy().T, s=8, color="0.8", label="complete rows")
    panel.scatter(*table.loc[some, ["flavanoids", "colour"]].to_numpy().T, s=12, label="rows with a gap")
    panel.set_title(name)
    panel.set_xlabel("flavanoids")
panels[0].set_ylabel("colour")
panels[0].legend()
figure.tight_layout()
figure.savefig(OUT / "missing_data.png", dpi=120)
print(f"\nWritten: {OUT / 'missing_data.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Which of guess and draw has the smaller squared error? *Answer: the guess, E[x_missing | x_observed]. A draw adds
#    the spread that the guess leaves out.*
# 2. Why is the error of the mean larger with ten tables than with one table of draws? *Answer: one table does not know
#    that its entries were drawn. The variance between tables adds this.*
