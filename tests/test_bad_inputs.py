"""Whatever is wrong, the command line says so in one line, with its own exit code, and leaves everything as it was."""

import json
import shlex
import shutil
import subprocess
import sys
import urllib.error

import bad_inputs
import pytest

from ppdgm.cli import main
from ppdgm.cli.failures import EXIT_CODES

BITS = "fit vae --data bits.npy"
DATA = "fit vae --steps 1 --data"
MINE = "fit {} --data bits.npy --steps 1"

ARGUMENTS = {  # name: (arguments, exit code, words of the message)
    "a command": ("fti", 2, "No such command 'fti'. Did you mean 'fit'?", "ppdgm --help"),
    "no program": ("fit", 2, "Missing argument 'PROGRAM'", "ppdgm fit --help"),
    "one argument too many": ("fit vae ppca", 2, "unexpected extra argument(s) (ppca)"),
    "a flag": ("fit vae --epoch 3", 2, "No such option: --epoch. Did you mean '--epochs'?"),
    "a field as a flag": ("fit vae --latent 3", 2, "--set program.latent=VALUE"),
    "a setting as a flag": ("fit vae --clip-norm 3", 2, "--set training.clip_norm=VALUE"),
    "a flag of another command": ("sample whole --epochs 3", 2, "No such option: --epochs", "ppdgm sample --help"),
    "a flag without its value": ("fit vae --epochs", 2, "Option '--epochs' requires an argument"),
    "a program": ("fit vea", 2, "No program is called 'vea'. Did you mean 'VAE'?"),
    "an engine": (f"{BITS} --engine sv", 2, "--engine: got 'sv'. Did you mean 'SVI'?"),
    "a backend": (f"{BITS} --backend torch", 2, "--backend: got 'torch'. Known: numpyro, pyro"),
    "an optimiser": (f"{BITS} --optimiser adm", 2, "got 'adm'. Did you mean 'adam'?"),
    "a device": (f"{BITS} --steps 1 --device tpu", 2, "No device 'tpu'", "Found: cpu"),
    "a device of torch": (f"{BITS} --steps 1 --device cuda:x --backend pyro", 2, "No device 'cuda:x'", "Found: cpu"),
    "epochs in words": ("fit vae --epochs ten", 2, "--epochs: got 'ten', expected a whole number, at least 1"),
    "no epochs": ("fit vae --epochs 0", 2, "--epochs: got '0', expected a whole number, at least 1"),
    "half a step": ("fit vae --steps 1.5", 2, "--steps: got '1.5', expected a whole number"),
    "no batch": ("fit vae --batch-size 0", 2, "--batch-size: got '0'", "at least 1"),
    "no number": ("fit vae --learning-rate nan", 2, "--learning-rate: got 'nan', expected a number"),
    "a negative rate": (
        f"{BITS} --learning-rate=-1",
        2,
        "Training.learning_rate: got -1.0; expected a number greater than or equal to 0",
    ),
    "epochs and steps": ("fit vae --epochs 1 --steps 1", 2, "Got --epochs and --steps: give one of them"),
    "steps without end": (f"{BITS} --steps 99999999999", 2, "Got 99999999999 steps, expected at most 2147483647"),
    "early stopping alone": (
        f"{BITS} --steps 3 --early-stopping 2 --set data.validation=0",
        2,
        "early_stopping needs validation",
    ),
    "a part of a catalogue": ("models vaee", 2, "'vaee'", "Did you mean 'VAE'?"),
    "runs of nowhere": ("runs nowhere", 5, "nowhere: there is no such folder", "runs/"),
    "new over a file": ("new right_one.py", 5, "right_one.py exists, and is left as it is", "another name"),
    "new without Python": ("new my.txt", 2, "Got 'my.txt', expected a Python file, such as my_program.py"),
    "new that hides another": ("new numpy.py", 2, "numpy.py would hide the Python module 'numpy'", "my_numpy.py"),
    "new with a keyword": ("new my_file.py --name class", 2, "--name: got 'class'", "such as MyProgram"),
    "new below a file": ("new bits.npy/my_file.py", 5, "bits.npy"),
}
SETTINGS = {
    "no value": (f"{BITS} --set program.latent", 2, "--set: got 'program.latent', expected PATH=VALUE"),
    "no path": (f"{BITS} --set =3", 2, "--set: got '=3', expected PATH=VALUE"),
    "a table": (f"{BITS} --set progam.latent=3", 2, "no 'progam'. Did you mean 'program'?"),
    "a field": (f"{BITS} --set program.latnet=3", 2, "VAE has no field 'latnet'. Did you mean 'latent'?"),
    "a field within": (f"{BITS} --set program.encoder.hiden=3", 2, "MLP has no field 'hiden'", "'hidden'?"),
    "a field of a number": (f"{BITS} --set program.latent.x=3", 2, "program.latent is a plain value", "--set"),
    "a table as a value": (f"{BITS} --set backend.name=pyro", 2, "backend.name: expected the field of a table"),
    "a kind": (f"{BITS} --set program.prior.kind=StandardNorma", 2, "Did you mean 'StandardNormal'?"),
    "a part": (f"{BITS} --set program.prior=StandardNorma", 2, "VAE.prior: got 'StandardNorma'", "a Prior, such as"),
    "a part of another kind": (f"{BITS} --set program.likelihood=MLP", 2, "VAE.likelihood", "a Likelihood, such as"),
    "a schedule": (f"{BITS} --set engine.beta.kind=Linar", 2, "Unknown kind 'Linar'. Did you mean 'Linear'?"),
    "a schedule for others": (f"{BITS} --set engine.beta.kind=Schedule", 2, "Unknown kind 'Schedule'", "Known:"),
    "a literal": (f"{BITS} --set program.encoder.activation=tan", 2, "got 'tan'. Did you mean 'tanh'?"),
    "zero": (f"{BITS} --set program.latent=0", 2, "VAE.latent: got 0; expected a number greater than 0"),
    "a fraction": (f"{BITS} --set program.latent=2.5", 2, "VAE.latent: got 2.5; expected a whole number"),
    "a word": (f"{BITS} --set program.latent=two", 2, "VAE.latent: got 'two'; expected a whole number"),
    "zero in a list": (
        f"{BITS} --set program.encoder.hidden=[8,0]",
        2,
        "MLP.hidden: got 0; expected a number greater than 0",
    ),
    "a negative scale": (
        f"{BITS} --set program.likelihood.kind=Gaussian --set program.likelihood.scale=-1",
        2,
        "Gaussian.scale: got -1; expected a number greater than 0",
    ),
    "no particles": (f"{BITS} --set engine.k=0", 2, "SVI.k: got 0; expected a number greater than 0"),
    "a KL": (f"{BITS} --set engine.kl=exact", 2, "SVI.kl: got 'exact'; expected 'auto', 'monte_carlo' or 'analytic'"),
    "a negative beta": (f"{BITS} --set engine.beta=-1", 2, "SVI.beta: got -1", "a Schedule"),
    "an average of one": (f"{BITS} --set training.weight_average=1", 2, "weight_average: got 1", "less than 1 or None"),
    "a type": (f"{BITS} --set training.dtype=float16", 2, "got 'float16'", "'float32' or 'float64'"),
    "neither true nor false": (f"{BITS} --set training.compile=maybe", 2, "got 'maybe'", "true or false or 'auto'"),
    "infinity": (f"{BITS} --set training.learning_rate=inf", 2, "learning_rate: got inf; expected a finite number"),
    "an optimiser's field": (
        f"{BITS} --set training.optimiser.kind=Optimiser --set training.optimiser.beta1=-1",
        2,
        "Optimiser.beta1: got -1",
    ),
    "a warm-up longer than the run": (
        f"{BITS} --steps 3 --set engine.beta.kind=Linear --set engine.beta.steps=9",
        2,
        "beta: the schedule needs 9 steps, but the run has 3. Train longer, or shorten it",
    ),
    "a rate longer than the run": (
        f"""{BITS} --steps 3 --set "training.learning_rate={{kind='Cosine', peak=1.0, steps=9}}" """,
        2,
        "learning_rate: the schedule needs 9 steps, but the run has 3",
    ),
    "another shape": (f"{BITS} --set program.event_shape=[4]", 3, "data of shape (5,), expected (4,)", "Reshape"),
    "a net for images": (f"{BITS} --set program.encoder.kind=ConvEncoder", 2, "ConvEncoder works on images", "MLP"),
    "more than memory": (f"{BITS} --set program.latent=1000000000000", 4, "Out of memory", "a smaller net"),
    "a split": (f"{BITS} --set data.validation=1.5", 2, "Source.validation: got 1.5; expected a fraction"),
    "a scale": (f"{BITS} --set data.scale=unti", 2, "Source.scale: got 'unti'. Did you mean 'unit'?"),
}
RECIPES = {
    "no file": ("fit none.toml", 2, "none.toml can't be read (No such file or directory)"),
    "a folder": ("fit folder.toml", 2, "folder.toml can't be read (Is a directory)"),
    "not TOML": ("fit broken.toml", 2, "broken.toml is not a recipe in TOML", "Invalid value"),
    "not text": ("fit binary.toml", 2, "binary.toml is not a recipe in TOML", "utf-8"),
    "empty": ("fit empty.toml", 2, 'no [program] table with a kind, such as kind = "VAE"'),
    "no program": ("fit no_program.toml", 2, "no [program] table with a kind"),
    "no data": ("fit no_data.toml", 2, "no_data.toml names no data", "--data NAME|PATH"),
    "no kind": ("fit no_kind.toml", 2, "no [program] table with a kind"),
    "a number for a table": ("fit number.toml", 2, "program: got 3, expected a table [program]"),
    "a list for a table": ("fit list.toml", 2, "program: got [", "expected a table [program]"),
    "a table": ("fit table.toml", 2, "A recipe has no 'trainig'. Did you mean 'training'?"),
    "a key": ("fit key.toml", 2, "VAE has no field 'latnet'. Did you mean 'latent'?"),
    "a kind": ("fit kind.toml", 2, "Unknown kind 'VEA'. Did you mean 'VAE'?"),
    "a list for a kind": ("fit kind_list.toml", 2, "kind", "['VAE']"),
    "a family for a net": ("fit family.toml", 2, "Unknown kind 'Net'", "MLP"),
    "a family for a schedule": ("fit schedule.toml", 2, "Unknown kind 'Schedule'", "Cosine"),
    "a family for an engine": ("fit engine.toml", 2, "Unknown kind 'Engine'", "SVI"),
    "a net for a program": ("fit net.toml", 2, "Got a MLP, expected a Program"),
    "a net for an engine": ("fit engine_of_nets.toml", 2, "Got a MLP, expected an Engine"),
    "a likelihood for a prior": ("fit likelihood_for_prior.toml", 2, "VAE.prior: got Bernoulli()", "StandardNormal()"),
    "a list for a net": ("fit net_in_list.toml", 2, "VAE.encoder: got (MLP(", "expected a Net, such as MLP()"),
    "a table for a number": ("fit kindless.toml", 2, "table without a kind: {'a': 3}"),
    "a table for a list": ("fit nested.toml", 2, "table without a kind: {'a': 1}"),
    "a date": ("fit date.toml", 2, "Training.steps: got datetime.date(1979, 5, 27); expected a whole number"),
    "a truth": ("fit truth.toml", 2, "Training.steps: got True; expected a whole number"),
    "epochs and steps": ("fit both.toml", 2, "Give either epochs=… or steps=…"),
    "a newer format": ("fit newer.toml", 2, "has format 99, this version of ppdgm reads 2. Update ppdgm"),
    "an older format": ("fit older.toml", 2, "has format 1", "It is an older version's: write it anew"),
    "a backend": ("fit backend.toml", 2, "backend: got 'torch'. Known: numpyro, pyro"),
    "a number for a name": ("fit name.toml", 2, "Source.name: got 3; expected text"),
    "an empty name": ("fit no_name.toml", 2, "Source.name: got ''; expected text that is not empty"),
    "a net for data": ("fit source.toml", 2, "MLP has no field 'name'"),
    "a class of one's own": ("fit own.toml", 2, "my_own:Mine, a class of your own", "fit own.toml --program my_own.py"),
    "a plain pair": ("fit plain_pair.toml", 2, "text can't tell", "ppdgm fit plain_pair.toml --program FILE.py:NAME"),
    "a module": ("fit module.toml", 2, "text can't tell", "ppdgm fit module.toml --program FILE.py:NAME"),
    "an optimiser of one's own": ("fit own_optimiser.toml", 2, "--optimiser adam"),
}
FILES = {
    "a set": (f"{DATA} dgits", 3, "Unknown data set 'dgits'. Did you mean 'digits'?"),
    "a set of the catalogue": ("data mnst", 3, "Unknown data set 'mnst'. Did you mean 'mnist'?"),
    "a set that is nowhere": (f"{DATA} mnist", 3, "can't be downloaded (no network)", "set PPDGM_DATA"),
    "no file": (f"{DATA} none.csv", 3, "No file or folder 'none.csv'", "or a path"),
    "another kind of file": (f"{DATA} picture.bin", 3, "picture.bin: got a file that is none of .npy", "np.save"),
    "NaN": (f"{DATA} nan.npy", 3, "got nan at index (7, 2), expected finite numbers. 1 of 40 data"),
    "infinity": (f"{DATA} inf.npy", 3, "got inf at index (3, 1), expected finite numbers"),
    "no data": (f"{DATA} empty.npy", 3, "empty array of shape (0, 5), expected at least one datum"),
    "a single number": (f"{DATA} number.npy", 3, "the single number 3.0, expected an array with a row for each datum"),
    "Python objects": (f"{DATA} objects.npy", 3, "objects.npy holds Python objects, expected numbers. Save it"),
    "text": (f"{DATA} words.npy", 3, "Data 'x': got text, expected real numbers"),
    "complex numbers": (f"{DATA} complex.npy", 3, "complex64, expected real numbers"),
    "out of range": (f"{DATA} counts.npy", 3, "expected 0 or 1", "--set program.likelihood.kind=Gaussian", "index (0"),
    "grey": (f"{DATA} grey.npy", 3, "expected 0 or 1", "--binarise static"),
    "binarised out of range": (f"{DATA} counts.npy --binarise static", 3, "in [0, 1]: give scale='unit'"),
    "binarised how": (f"{DATA} grey.npy --binarise statc", 2, "got 'statc'. Did you mean 'static'?"),
    "binarised levels": (f"{DATA} bits.npy --binarise static --set data.scale=levels", 3, "give scale='unit'"),
    "a split that leaves nothing": (
        f"{DATA} pair.npy --set data.validation=1 --set data.test=1",
        3,
        "validation=1, test=1: leaves nothing of 2 rows to train on",
    ),
    "a fraction of nothing": (f"{DATA} pair.npy --set data.test=0.1", 3, "the fraction 0.1 of 2 rows, which is none"),
    "fields of different lengths": (f"{DATA} lengths.npz", 3, "fields of {'x': 40, 'label': 7} rows"),
    "a field too many": (f"{DATA} masked.npz", 3, "got fields ['x', 'mask'], but the model of VAE takes ['x']"),
    "a label too many": (f"{DATA} labelled.npz --set data.fields=x,label", 3, "model of VAE takes ['x']"),
    "a field": (f"{DATA} labelled.npz --set data.fields=x,lable", 3, "'lable'. Did you mean 'label'?"),
    "fields of other names": (f"{DATA} strangers.npz", 3, "arrays 'a', 'b', of which none is named 'x'", "fields={"),
    "half an archive": (f"{DATA} half.npz", 3, "half.npz is no whole .npz file"),
    "an archive of something else": (f"{DATA} bomb.npz", 3, "'x'", "expected"),
    "half an idx file": (f"{DATA} cut-idx3-ubyte", 3, "got 20 bytes of data, its header says 144. Get the file again"),
    "not gzipped": (f"{DATA} packed-idx3-ubyte.gz", 3, "packed-idx3-ubyte.gz can't be read: Not a gzipped file"),
    "a word in a table": (f"{DATA} words.csv", 3, "words.csv, line 3, column 'b': got 'four', expected a number"),
    "a missing value": (f"{DATA} missing.csv", 3, "line 3, column 'a': got '', a missing value. Fill it in"),
    "a ragged table": (f"{DATA} ragged.csv", 3, "ragged.csv, line 3: got 1 cells, expected 2"),
    "an empty table": (f"{DATA} nothing.csv", 3, "nothing.csv is empty, expected rows of numbers"),
    "a header alone": (f"{DATA} header.csv", 3, "header.csv has a header, but no rows"),
    "a column": (f"""{DATA} words.csv --set "data.fields={{x = ['a', 'z']}}" """, 3, "no column 'z'. Known: a, b"),
    "images of two sizes": (f"{DATA} images", 3, "images/2.png is 5×5", "expected 4×4", "convert all to one size"),
    "a folder without data": (f"{DATA} thesis", 3, "thesis: got no images, expected files ending in .png"),
    "how to prepare": ("data bits.npy --set scal=unit", 2, "Source has no field 'scal'. Did you mean 'scale'?"),
}
PROGRAMS = {
    "no file": ("fit none.py", 2, "none.py: there is no such file. ppdgm new none.py"),
    "no module": ("fit no_such:Thing", 2, "no_such can't be imported: ModuleNotFoundError"),
    "no name": ("fit two_programs.py:C", 2, "two_programs has no 'C'. Known: A, B"),
    "a name that is close": ("fit right_one.py:Mien", 2, "right_one has no 'Mien'. Did you mean 'Mine'?"),
    "half a name": ("fit right_one:", 2, "expected FILE.py, FILE.py:NAME or MODULE:NAME"),
    "several": ("fit two_programs.py", 2, "Say which: two_programs.py:A, two_programs.py:B"),
    "none": ("fit no_program_here.py", 2, "no_program_here.py has no program. Expected a Program"),
    "not a program": ("fit a_list.py:mine", 2, "a_list:mine is no program"),
    "not Python": ("fit syntax_error.py", 2, "SyntaxError", "syntax_error.py, line 1"),
    "not text": ("fit binary.py", 2, "binary.py can't be imported: SyntaxError"),
    "an error in it": ("fit raises_error.py", 2, "ZeroDivisionError: division by zero (raises_error.py, line 2)"),
    "an exit in it": ("fit exits_early.py", 2, "exits_early.py can't be imported: SystemExit"),
    "an import in it": ("fit imports_missing.py", 2, "No module named 'no_such_package' (imports_missing.py, line 1)"),
    "a field without a type": ("fit untyped_field.py", 2, "latent", "annotation"),
    "a field of no type": (MINE.format("unknown_type.py"), 2, "Mine", "NoSuchType"),
    "a method without arguments": ("fit few_arguments.py", 2, "Mine.model(self): expected model(self, P, x)"),
    "no guide": (MINE.format("no_guide.py"), 2, "Mine has no guide(self, P, x)"),
    "no plate": (MINE.format("no_plate.py"), 2, "Site 'z' is outside the data plate", "with P.plate(…):"),
    "no to_event": (MINE.format("no_event.py"), 2, "Site 'z'", "batch shape (3, 2)", "add .to_event(1)"),
    "no to_event, in torch": (MINE.format("no_event.py") + " --backend pyro", 2, "Site 'z'", "add .to_event(1)"),
    "guide and model disagree": (MINE.format("another_site.py"), 2, "'z' is latent in the model", "guide draws: w"),
    "a negative scale": (MINE.format("negative_scale.py"), 2, "negative_scale.py:", "A scale must be positive"),
    "a shape in build": (MINE.format("wrong_shape.py"), 2, "Net 'decoder': inputs: got shape 2", "such as (4,)"),
    "an error in build": (MINE.format("fails_in_build.py"), 2, "fails_in_build.py:9, `1 / 0`: division by zero"),
    "an error in the model": (MINE.format("fails_in_model.py"), 2, "fails_in_model.py:14, `P.nothing`"),
    "a field of it": (MINE.format("right_one.py") + " --set program.shape=3", 2, "Mine has no field 'shape'"),
    "data of another shape": (MINE.format("right_one.py") + " --set program.event_shape=[6]", 3, "expected (6,)"),
    "a recipe's without its class": ("fit own.toml --program two_programs.py", 2, "my_own:Mine", "--program my_own.py"),
    "a recipe's from nowhere": ("fit own.toml --program none.py", 2, "none.py: there is no such file"),
    "a path to nowhere": ("fit no/where", 2, "no/where: there is no such recipe, run or program file"),
    "a folder": ("fit ./images", 2, "./images is no run folder: it has no recipe.toml"),
}
RUNS = {
    "no run": ("evaluate nowhere", 5, "nowhere: there is no such run", "ppdgm runs DIR"),
    "a folder": ("evaluate images", 5, "images is no run: there is no recipe.toml"),
    "a file": ("evaluate bits.npy", 5, "bits.npy is no run"),
    "its recipe": ("evaluate whole/recipe.toml", 5, "whole/recipe.toml is a recipe. Give its folder: 'whole'"),
    "damaged weights": (
        "evaluate damaged",
        5,
        "damaged/weights.safetensors is damaged",
        "step-0000000004.safetensors is whole: ppdgm resume damaged --checkpoint damaged/checkpoints/step-0000000004",
    ),
    "another file for weights": ("sample garbage --out new.npy", 5, "garbage/weights.safetensors is damaged"),
    "a damaged checkpoint": (
        "resume last_damaged --steps 8",
        5,
        "step-0000000004.safetensors is damaged",
        "step-0000000002.safetensors is whole: ppdgm resume last_damaged --checkpoint last_damaged/checkpoints/step-",
    ),
    "no whole checkpoint": ("resume all_damaged --steps 8", 5, "step-0000000004.safetensors is damaged"),
    "a changed recipe": ("evaluate changed", 5, "changed after training: program.latent is 3, and was 2", "ppdgm fit"),
    "a newer recipe": ("evaluate from_the_future", 5, "format 99", "Update ppdgm"),
    "a broken recipe": ("resume unreadable", 5, "unreadable/recipe.toml is not a recipe in TOML"),
    "no recipe": ("evaluate without_recipe", 5, "without_recipe is no run: there is no recipe.toml"),
    "no checkpoints": ("resume without_checkpoints --steps 8", 5, "no checkpoint yet: nothing to go on from"),
    "a checkpoint that is none": ("resume whole --checkpoint none", 5, "none: there is no such file", "whole/checkpo"),
    "a checkpoint of something else": ("resume whole --checkpoint bits.npy", 5, "bits.npy is no checkpoint of whole"),
    "a checkpoint of another run": (
        "resume whole --checkpoint last_damaged/checkpoints/step-0000000002.safetensors",
        5,
        "step-0000000002.safetensors is no checkpoint of whole",
    ),
    "the result for a checkpoint": ("resume whole/weights.safetensors --steps 8", 5, "no checkpoint of whole"),
    "fewer steps": ("resume whole --steps 3", 2, "whole: the run is already at step 4, of 3 that were asked for"),
    "steps and epochs": ("resume whole --steps 8 --epochs 8", 2, "Got --epochs and --steps: give one of them"),
    "other data": ("resume whole --steps 8 --data pair.npy --json", 3, "other data than the run was started with"),
    "data from Python": ("resume without_data --steps 8", 3, "handed its data in Python", "--data NAME|PATH"),
    "evaluated without data": ("evaluate without_data", 3, "ppdgm evaluate without_data --data NAME|PATH"),
    "data of another shape": ("evaluate whole --data wide.npy", 3, "data of shape (10,), expected (5,)"),
    "data that are not finite": ("evaluate whole --data nan.npy", 3, "got nan at index (7, 2)"),
    "data out of range": ("evaluate whole --data grey.npy", 3, "expected 0 or 1", "40 of 40 data"),
    "no particles": ("evaluate whole --k 0", 2, "--k: got '0', expected a whole number, at least 1"),
    "a negative seed": ("evaluate whole --seed -1", 2, "--seed: got '-1', expected a whole number, at least 0"),
    "memory in words": ("evaluate whole --memory lots", 2, "memory: got 'lots'", "'512 MiB' or 'auto'"),
    "memory without end": ("evaluate whole --memory infGiB", 2, "memory: got 'infGiB'", "'512 MiB' or 'auto'"),
    "a split": ("evaluate whole --split tset", 2, "--split: got 'tset'. Did you mean 'test'?"),
    "a backend": ("evaluate whole --backend torch", 2, "--backend: got 'torch'. Known: numpyro, pyro"),
    "a device": ("evaluate whole --device tpu", 2, "No device 'tpu'", "Found: cpu"),
    "no samples": ("sample whole --n 0 --out new.npy", 2, "--n: got '0', expected a whole number, at least 1"),
    "samples of another kind": ("sample whole --out new.gif", 2, "'new.gif'. Known: .csv, .npy, .npz, .png"),
    "samples over a file": ("sample whole --out bits.npy", 5, "--out: bits.npy exists", "--overwrite"),
    "samples below a file": ("sample whole --out bits.npy/new.npy", 5, "bits.npy"),
    "a folder that is taken": (f"{BITS} --out whole", 5, "whole holds a run already", "--overwrite", "resume whole"),
    "a folder that is no run's": (f"{BITS} --steps 1 --out thesis --overwrite", 5, "thesis holds files that are not"),
    "a file for a folder": (f"{BITS} --steps 1 --out bits.npy", 5, "bits.npy is a file, expected a folder"),
    "a folder below a file": (f"{BITS} --steps 1 --out bits.npy/run", 5, "bits.npy/run can't be made"),
    "a folder where none can be": (f"{BITS} --steps 1 --out /proc/run", 5, "/proc/run can't be made", "another folder"),
    "a bad replacement": (f"{DATA} nan.npy --out whole --overwrite", 3, "got nan at index (7, 2)"),
    "over an odd status": (f"{DATA} nan.npy --out odd_status --overwrite", 3, "got nan at index (7, 2)"),
}
MISSING = {  # and the packages that are not installed, of those that the words name
    "torch": (f"{BITS} --steps 1 --backend pyro", 6, "Backend 'pyro' needs the package 'torch'", "ppdgm[pyro]"),
    "pyro": ("evaluate whole", 6, "Backend 'pyro' needs the package 'pyro'", 'pip install "ppdgm[pyro]"'),
    "jax": (f"{BITS} --steps 1", 6, "Backend 'numpyro' needs the package 'jax'", "pip install ppdgm"),
    "wandb": (f"{BITS} --steps 1 --wandb mine", 6, "WandB needs wandb", "pip install wandb"),
}
TABLE = {
    f"{group}: {name}": (shlex.split(line), code, words)
    for group, cases in {
        "arguments": ARGUMENTS, "settings": SETTINGS, "recipe": RECIPES, "data": FILES, "program": PROGRAMS,
        "run": RUNS, "missing": MISSING,
    }.items()
    for name, (line, code, *words) in cases.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    here = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        bad_inputs.build(here)
    return here, contents(here)


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """The world, without a network, and with no set in a folder of the user's; and its content before."""
    here, before = world
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    yield here, before
    if contents(here) != before:  # training, or a test that failed
        restore(here, before)


def no_network(*_, **__):
    raise urllib.error.URLError("no network")


def hide(package, patch):
    """As if a package were not installed."""
    for name in list(sys.modules):
        if name.startswith("ppdgm.backends."):
            patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, package, None)


def contents(folder):
    """Every file with its bytes, every folder with nothing."""
    return {p.relative_to(folder): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}


def restore(folder, before):
    shutil.rmtree(folder)
    folder.mkdir()
    for path, content in sorted(before.items()):
        (folder / path).mkdir() if content is None else (folder / path).write_bytes(content)


def run(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ppdgm", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code, *capsys.readouterr()


@pytest.mark.parametrize("case", TABLE)
def test_bad_inputs(case, here, monkeypatch, capsys):
    """One line on stderr, that names what was got and what to do; an exit code of the table's; nothing else at all."""
    arguments, expected, words = TABLE[case]
    if case.startswith("missing: "):
        hide(case.removeprefix("missing: "), monkeypatch)
    folder, before = here
    code, out, err = run(arguments, monkeypatch, capsys)
    line = err.removesuffix("\n")
    assert code == expected and f"\n{code}  " in EXIT_CODES, err
    assert line.startswith("ppdgm: ") and "\n" not in line and "Traceback" not in line and len(line) < 600, err
    for word in words:
        assert word in line
    if "--json" not in arguments and arguments[:1] not in (["new"], ["fti"]):
        assert not out
        code, out, err = run([arguments[0], "--json", *arguments[1:]], monkeypatch, capsys)
        assert code == expected and err.replace(" --json", "") == f"{line}\n"  # a message may repeat the command
    if out:
        found = json.loads(out)
        assert list(found) == ["error"] and set(found["error"]) == {"type", "message"}
        assert f"ppdgm: {found['error']['message']}\n" == err
    assert contents(folder) == before


def test_training_that_is_not_finite_ends_with_a_code_of_its_own(here, monkeypatch, capsys):
    """The run is kept, with the parameters before."""
    rate = ("--set", "training.learning_rate=1e30", "--set", "training.max_skipped=2", "--backend", "pyro")
    arguments = (*shlex.split(f"{BITS} --steps 9 --no-compile --out new"), *rate)
    code, out, err = run([*arguments, "--json"], monkeypatch, capsys)
    *_, line = err.splitlines()
    assert (
        code == 4 and line.startswith("ppdgm: Training stopped, as numbers were not finite") and "new/log.txt" in line
    )
    assert json.loads(out)["error"]["message"] in line and "Traceback" not in err
    assert (here[0] / "new" / "weights.safetensors").is_file()


TRUE = (  # also as processes of their own
    "arguments: a flag",
    "recipe: not TOML",
    "data: NaN",
    "program: guide and model disagree",
    "run: a damaged checkpoint",
)


@pytest.mark.parametrize("case", TRUE)
def test_a_true_process_says_the_same(case, here, monkeypatch, capsys):
    arguments, *_ = TABLE[case]
    code, out, err = run(arguments, monkeypatch, capsys)
    found = subprocess.run([sys.executable, "-m", "ppdgm", *arguments], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout, found.stderr) == (code, out, err)
