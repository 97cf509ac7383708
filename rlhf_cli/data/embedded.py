"""Sources that a package of the product generates, named scheme:role, instead of files that are read."""

from importlib import import_module
from types import MappingProxyType, ModuleType

from rlhf_cli.config.schema import Source

# A generator has generate(role, *, world, seed) -> records, keys_of(role) -> the settings that decide
# them, and code_hash(). Settings stand in the section of the configuration that the scheme names.
GENERATORS = MappingProxyType({"tiny_world": "rlhf_cli.tiny_world"})


def scheme_of(path: str) -> str | None:
    """Return the scheme of a source's path; None for a file, a folder or a hub id."""
    scheme, colon, _ = path.partition(":")
    return scheme if colon and scheme in GENERATORS else None


def generator_of(source: Source) -> ModuleType | None:
    """Return the package that generates a source; None for a source that is read."""
    scheme = scheme_of(source.path)
    return None if scheme is None else import_module(GENERATORS[scheme])
