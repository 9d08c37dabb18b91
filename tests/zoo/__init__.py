"""Small instances of the zoo, one module for each family: `ZOO`, name -> Instance. A new part joins by being listed."""

from importlib import import_module
from pkgutil import iter_modules

ZOO = {}
for found in iter_modules(__path__):
    ZOO |= import_module(f"zoo.{found.name}").ZOO
