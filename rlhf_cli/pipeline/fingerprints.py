"""What the result of a stage depends on now, as its fingerprint: configuration, data, tasks and models.

torch is not imported here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_cli import __version__
from rlhf_cli.artifacts.fingerprint import Fingerprint, model_hash
from rlhf_cli.artifacts.store import file_hash
from rlhf_cli.config.compose import freeze
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import covers, select
from rlhf_cli.config.result_keys import without_effect
from rlhf_cli.config.schema import Runtime
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import StageSpec, TasksRead
from rlhf_cli.data.report import key_of
from rlhf_cli.data.template_texts import BUILT_IN
from rlhf_cli.pipeline.model_folders import shipped
from rlhf_cli.report.header import GPUS
from rlhf_cli.stages.reading import spec_of


@dataclass(slots=True, kw_only=True)
class Fingerprints:
    """Makes the fingerprints of the stages of a run. Data and tasks are read once."""

    cfg: Config
    data: dict[str, tuple[dict[str, Any], dict[str, dict[str, str]]]] = field(default_factory=dict)
    tasks: dict[TasksRead, dict[str, str]] = field(default_factory=dict)

    def of(self, spec: StageSpec, parents: dict[str, str]) -> Fingerprint:
        """Return the fingerprint of a stage. parents: the digests of theirs, "" of one that has to run."""
        models = {r: model_hash(shipped(p), rev) for r, (p, rev) in spec.models(self.cfg).items()}
        config, data = _own_config(spec, self.cfg), {"data.template": _template(self.cfg)}
        for role in spec.data(self.cfg):
            keys, contents = self._data(role)
            config = keys | config
            for other, found in contents.items():
                data.setdefault(f"data.{other}", {}).update(found)
        which = spec.tasks(self.cfg)
        if which and (found := self._task_contents(which)):
            data["tasks"] = found
        for key, path in spec.files(self.cfg).items():
            data[key] = {path: _content(key, path)}
        return Fingerprint(
            config=config,
            data=data,
            parents=parents | models,
            version=__version__,
            open=("runtime.dtype",) if self.cfg.runtime.dtype == "auto" else (),
        )

    def _data(self, role: str) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        """Return the keys and the hashes of a role's data, read once; UserError if it cannot be read."""
        if role not in self.data:
            spec = spec_of(self.cfg, role)
            try:
                self.data[role] = spec.config(), spec.contents()
            except OSError as error:
                raise UserError(f"{key_of(role)} cannot be read: {error}") from error
        return self.data[role]

    def _task_contents(self, which: TasksRead) -> dict[str, str]:
        """Return the hashes of the tasks that a stage reads itself, read once."""
        from rlhf_cli.data.tasks.contents import contents
        from rlhf_cli.stages.task_reading import tasks_read

        if which not in self.tasks:
            self.tasks[which] = contents(tasks_read(self.cfg, which))
        return self.tasks[which]


def _own_config(spec: StageSpec, cfg: Config) -> dict[str, Any]:
    """Return the keys of the stage itself that decide its result, without those that have no effect."""
    left_out = without_effect(cfg)
    found = select(freeze(cfg), spec.config(cfg))
    found = {k: v for k, v in found.items() if not any(covers(p, k) for p in left_out)}
    return found | {"runtime.dtype": _precision(cfg.runtime)}


def _content(key: str, path: str) -> str:
    """Return the hash of a file that a key names; UserError if it cannot be read."""
    try:
        return file_hash(Path(path).expanduser())
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{key}={path} cannot be read: {why}; give another path") from error


def _precision(runtime: Runtime) -> str:
    """Return the precision, that which `auto` will choose too, without importing torch."""
    if runtime.dtype != "auto":
        return runtime.dtype
    gpu = runtime.device.startswith("cuda") or (
        runtime.device == "auto" and GPUS.is_dir() and any(GPUS.iterdir())
    )
    return "bfloat16" if gpu else "float32"


def _template(cfg: Config) -> dict[str, str]:
    """Return {data.template: its content}: the hash of a file, or the name of a built-in one."""
    name = cfg.data.template
    path = Path(name).expanduser()
    is_file = name not in ("auto", *BUILT_IN) and path.is_file()
    return {name: file_hash(path) if is_file else name}
