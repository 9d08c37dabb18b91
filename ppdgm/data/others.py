"""Files of other programs: none is read; each message says how to turn its rows into a file that is read."""

from __future__ import annotations

from pathlib import Path

_ARRAY = "np.save('rows.npy', rows)"
_TABLE = ".to_csv('rows.csv', index=False)"
_FORMATS = (  # (endings, what the file is, what to do)
    ((".pt", ".pth", ".ckpt"), "a torch file", f"Convert it: rows = torch.load(path).numpy(); {_ARRAY}"),
    (
        (".pkl", ".pickle", ".joblib"),
        "a pickle, which ppdgm never opens because it can run code",
        f"If you trust it, open it yourself and save its rows: {_ARRAY}",
    ),
    (
        (".feather", ".arrow", ".orc"),
        "an Arrow table",
        "Convert it: pandas.read_feather(path).to_parquet('rows.parquet')",
    ),
    (
        (".xlsx", ".xls", ".ods"),
        "a spreadsheet",
        f"Save the sheet as .csv, or convert it: pandas.read_excel(path){_TABLE}",
    ),
    ((".json", ".jsonl", ".ndjson"), "JSON", f"Convert it: pandas.read_json(path){_TABLE}"),
    ((".h5", ".hdf5", ".nc"), "an HDF5 file", f"Convert it: rows = h5py.File(path)['name'][:]; {_ARRAY}"),
    ((".mat",), "a MATLAB file", f"Convert it: rows = scipy.io.loadmat(path)['name']; {_ARRAY}"),
    ((".mtx", ".mtx.gz"), "a sparse matrix", f"Convert it: rows = scipy.io.mmread(path).toarray(); {_ARRAY}"),
    (
        (".safetensors",),
        "a safetensors file",
        f"Convert it: rows = safetensors.numpy.load_file(path)['name']; {_ARRAY}",
    ),
    ((".rds", ".rda", ".rdata", ".dta", ".sav", ".sas7bdat"), "a table of another program", "Export it as .csv"),
    ((".txt", ".dat", ".data", ".tab"), "text", "If it is a table with commas, semicolons or tabs, name it .csv"),
    (
        (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".bz2", ".xz", ".zst", ".npy.gz", ".npz.gz"),
        "a packed file",
        "Unpack it first",
    ),
    ((".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"), "a single image", "Give its folder"),
)


def other_format(path: Path) -> str:
    """What a file is, by its name, and how to turn its rows into a file that is read; "" if the name doesn't say."""
    name = path.name.lower()
    found = next((f for f in _FORMATS if name.endswith(f[0])), None)
    return f"{path}: got {found[1]}, expected .npy, .npz, .csv, .tsv, .parquet or idx. {found[2]}." if found else ""
