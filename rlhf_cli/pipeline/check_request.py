"""The words of `rlhf data check`: files, options of its own, and what is passed on to the configuration."""

import re
from dataclasses import dataclass

from rlhf_cli.config.completion import OF_CHECK
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.overrides import VALUED, YAML
from rlhf_cli.data.roles import role_of

ALL, JSON = OF_CHECK


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """words: for the configuration . roles: of the files named alone, {path: (role, why)} .
    every_row: all examples are listed, not the first few . as_json: for programs . any_stage: no
    stage was asked for, so those count that the data is enough for.
    """

    words: list[str]
    roles: dict[str, tuple[str, str]]
    every_row: bool
    as_json: bool
    any_stage: bool


def read_words(words: list[str]) -> CheckRequest:
    """Separate files from key=value; a file stands under the role that its columns show."""
    own = [word for word in words if word not in (ALL, JSON)]
    files = [
        word
        for word, before in zip(own, ["", *own], strict=False)
        if "=" not in word
        and not word.startswith(("-", "~"))
        and not word.endswith(YAML)
        and before not in VALUED
    ]
    roles = {path: role_of(path) for path in dict.fromkeys(files)}
    rest = [word for word in own if word not in files]
    keys = {word.partition("=")[0].lstrip("+") for word in rest}
    return CheckRequest(
        words=[*_added(roles, keys), *rest],
        roles=roles,
        every_row=ALL in words,
        as_json=JSON in words,
        any_stage=bool(files) and "stage" not in keys,
    )


def _added(roles: dict[str, tuple[str, str]], keys: set[str]) -> list[str]:
    """The words that name the files as sources, and no other data beside them."""
    sources: dict[str, list[str]] = {}
    for path, (role, _) in roles.items():
        sources.setdefault(role, []).append(f"{{path: {_quoted(path)}}}")
    for role in sources:
        if f"data.{role}" in keys:
            raise UserError(
                f"data.{role}=... and a file of {role} are both given: name the file in data.{role}"
            )
    words = [f"data.{role}=[{', '.join(listed)}]" for role, listed in sources.items()]
    return ["data=generic", *words] if words and "data" not in keys else words


def _quoted(path: str) -> str:
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", path):
        return path
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"
