"""The README's Python runs as it stands, but for the sizes."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 10
    code = (
        "\n".join(blocks).replace("epochs=200", "epochs=2").replace("epochs=20", "epochs=2").replace("k=5000", "k=50")
    )
    code += "\nppdgm.fit(TwoLayers(event_shape=(8, 8)), data.train, epochs=1).elbo(data.test)\n"
    code += "rows = {'x': data.test, 'length': [i % 8 + 1 for i in range(300)]}\n"
    code += "print(ppdgm.fit(Chain(event_shape=(8, 8)), rows, steps=3, progress=False).elbo(rows))\n"
    (tmp_path / "readme.py").write_text(code, encoding="utf-8")
    run = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("nats (N = 300") == 9
    assert (tmp_path / "runs/vae/recipe.toml").exists()
