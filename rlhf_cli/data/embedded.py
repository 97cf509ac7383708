"""Sources that a package of the product generates, named scheme:role, instead of files that are read."""

from importlib import import_module
from types import MappingProxyType, ModuleType

from rlhf_cli.config.schema import Source

# A generator has generate(role, *, world, seed) -> records, keys_of(role) -> the settings that decide
# them, and code_hash(). Settings stand in the section of the configuration that the scheme names.
GENERATORS = MappingProxyType({"tiny_world": "rlhf_cli.tiny_world"})
SCHEMES = (*GENERATORS, "tasks")  # tasks:train is made of task files (data/tasks)


def scheme_of(path: str) -> str | None:
    """Return the scheme of a source's path; None for a file, a folder or a hub id."""
    scheme, colon, _ = path.partition(":")
    return scheme if colon and scheme in SCHEMES else None


def generator_of(source: Source) -> ModuleType | None:
    """Return the package that generates a source; None for one that is read, or made of task files."""
    scheme = scheme_of(source.path)
    return import_module(GENERATORS[scheme]) if scheme in GENERATORS else None
