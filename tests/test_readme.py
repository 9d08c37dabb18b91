"""The README's Python runs as it stands, but for the sizes."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
SMALL = {
    "epochs=200": "epochs=2",
    "epochs=20": "epochs=2",
    "k=5000": "k=50",
    "k=200, few=8": "k=40, few=4, temperatures=5, num_leapfrog=2, refit_steps=5, replicated=20",
    "draws=100": "draws=10",
}


def test_the_readmes_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 10
    code = "\n".join(blocks)
    for size, small in SMALL.items():
        assert size in code
        code = code.replace(size, small)
    code += "\nppdgm.fit(TwoLayers(event_shape=(8, 8)), data.train, epochs=1).elbo(data.test)\n"
    code += "rows = {'x': data.test, 'length': [i % 8 + 1 for i in range(300)]}\n"
    code += "print(ppdgm.fit(Chain(event_shape=(8, 8)), rows, steps=3, progress=False).elbo(rows))\n"
    (tmp_path / "readme.py").write_text(code, encoding="utf-8")
    run = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("nats (N = 300") == 9
    assert (tmp_path / "runs/vae/recipe.toml").exists()
