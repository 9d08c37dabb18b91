"""Draws report.png: the verdict and some figures of the README's VAE, in two minutes."""

import io
import textwrap
from pathlib import Path

import matplotlib.image
from matplotlib.figure import Figure
from PIL import Image

import ppdgm
from ppdgm.diagnostics.figures import draw_figures, png
from ppdgm.models import MLP, VAE

data = ppdgm.load_data("digits")
net = MLP(hidden=(200, 200))
program = VAE(event_shape=data.event_shape, latent=16, encoder=net, decoder=net)
found = ppdgm.fit(program, data, epochs=200, seed=0, progress=False).diagnose(data.test)
drawn, _ = draw_figures(found)

page = Figure(figsize=(11, 7.6), facecolor="#fefefd")
page.text(0.02, 0.965, f"VAE: diagnosis on {found.size} rows of test data", size=15, weight="bold")
lines = [line for line in str(found).splitlines() if line.startswith(("✗", "!", "✓"))]
y = 0.93
for line in lines:
    wrapped = textwrap.wrap(line[2:], 62)[:2]
    colour = {"✗": "#c4314b", "!": "#b4690e", "✓": "#2e7d32"}[line[0]]
    page.text(0.02, y, line[0], size=11, weight="bold", color=colour, va="top")
    page.text(0.037, y, "\n".join(wrapped) + (" …" if len(textwrap.wrap(line[2:], 62)) > 2 else ""), size=8.2, va="top")
    y -= 0.018 + 0.022 * len(wrapped)
places = {
    "samples": (0.47, 0.55, 0.25, 0.40),
    "reconstructions": (0.73, 0.55, 0.25, 0.40),
    "bounds": (0.47, 0.28, 0.25, 0.26),
    "kl": (0.73, 0.28, 0.25, 0.26),
    "prior": (0.02, 0.01, 0.25, 0.30),
    "codes": (0.27, 0.01, 0.20, 0.30),
    "calibration": (0.47, 0.01, 0.25, 0.26),
    "history": (0.73, 0.01, 0.25, 0.26),
}
for name, place in places.items():
    if name in drawn:
        axes = page.add_axes(place)
        axes.imshow(matplotlib.image.imread(io.BytesIO(png(drawn[name]))))
        axes.set_axis_off()
buffer = io.BytesIO()
page.savefig(buffer, dpi=90)
small = Image.open(buffer).convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
small.save(Path(__file__).with_name("report.png"), optimize=True)
