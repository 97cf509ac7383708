"""What every stage opens first: device, processes, seeds, renderer; and with it its models and rows."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_cli.artifacts.store import FREE, model_folder, write_errors
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.positions import NAMES, num_positions, require_positions
from rlhf_cli.config.schema import Graphs, Optim
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.finite import not_finite
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.rows import Rows
from rlhf_cli.data.templates import Renderer, build
from rlhf_cli.models.capabilities import describe
from rlhf_cli.models.compile import compile_blocks
from rlhf_cli.models.export import export, set_pad
from rlhf_cli.models.flops import measured_peak_flops
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.models.load import (
    fit_embeddings,
    freeze,
    load_causal_lm,
    load_classifier,
    load_scalar_model,
    load_tokenizer,
    stop_ids,
)
from rlhf_cli.runtime.device import Device, pick_device, seed_everything, threads_for
from rlhf_cli.runtime.energy import energy_meter
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.factory import local_parameters, model_loading, open_engine, open_network
from rlhf_cli.runtime.watchdog import with_heartbeat
from rlhf_cli.runtime.world import World, open_world
from rlhf_cli.stages.preparing import prepared
from rlhf_cli.stages.reading import spec_of
from rlhf_cli.telemetry.console import line, status
from rlhf_cli.telemetry.recorder import Recorder
from rlhf_cli.telemetry.timing import Clock


@dataclass(slots=True, kw_only=True)
class Encoded:
    """The sides of a role as token ids, and the report of its rows."""

    train: Rows
    select: Rows
    held_out: Rows
    report: DataReport

    def print_report(self, recorder: Recorder) -> None:
        """Print the report of the rows: a line each, with examples where rows were lost."""
        recorder.note(self.report.headline())
        if not (self.report.num_bad or self.report.left_out or self.report.examples):
            for what, count in self.report.notes.most_common():
                recorder.note(f"{count} x {what}")
        elif not recorder.silent:
            for indent, text, style in self.report.details():
                line(" " * (indent + 2) + text, style=style)


@dataclass(slots=True, kw_only=True)
class StageContext:
    """What a stage works with. threads: of the CPU, at most. largest: parameters of a model so far."""

    cfg: Config
    device: Device
    world: World
    renderer: Renderer
    clock: Clock
    threads: int = field(default_factory=torch.get_num_threads)
    largest: int = 0
    notes: dict[str, None] = field(default_factory=dict)  # in the order they were made, each once

    def print_notes(self, recorder: Recorder, network: Network, *, samples: bool = True) -> None:
        """Print notes on the stage's model: its attention, how it is read and sampled."""
        network.model.eval()
        with network.generating() as model:
            recorder.note(describe(model, samples=samples))
        for note in self.notes:
            recorder.note(note)

    def status(self, what: str) -> AbstractContextManager[None]:
        """Show what is done inside the block; only the main process prints."""
        return status(what, silent=not self.world.is_main)

    def encoded(self, role: str) -> "Encoded":
        """Return a role's records as token ids; refuse when too many rows are bad."""
        found = prepared(spec_of(self.cfg, role), self.renderer, self.cfg, self.world)
        found.report.enforce()
        return Encoded(
            train=found.train, select=found.select, held_out=found.eval, report=found.report
        )

    def causal_lm(self, path: Path | None = None, *, dropout: float = 0.0):
        """Return a language model with all tokens of the renderer, in float32; its engine casts it."""
        where = None if path is None else str(path)
        shown = self.status(f"loading {where or self.cfg.model.path}")
        with shown, model_loading(self.cfg.runtime, self.world):
            model = load_causal_lm(self.cfg.model, where, dropout=dropout, unpadded=self._unpadded)
            grown = fit_embeddings(model, self.renderer.tokenizer)
        if grown:
            self.notes[f"{grown} special tokens without an embedding got a new one"] = None
        require_positions(room_of(model.config), self.cfg.data)
        return self._fitted(model, where or self.cfg.model.path)

    def scalar_model(self, path: Path, *, new_head: bool = False, dropout: float = 0.0):
        """Return a reward or value model; new_head: of a language model, the head is drawn later."""
        with self.status(f"loading {path}"):
            model = load_scalar_model(
                self.cfg.model,
                str(path),
                new_head=new_head,
                dropout=dropout,
                unpadded=self._unpadded,
                loading=partial(model_loading, self.cfg.runtime, self.world),
            )
        set_pad(model.config, self.renderer.pad_id)
        return self._fitted(model, str(path))

    def classifier(self, path: str) -> tuple[Network, PreTrainedTokenizerBase]:
        """Return a text classifier, frozen, and its tokenizer."""
        with self.status(f"loading {path}"), model_loading(self.cfg.runtime, self.world):
            model, tokenizer = load_classifier(self.cfg.model, path)
        return self.network(self._fitted(model, path)), tokenizer

    def judging_lm(self, path: Path) -> Network:
        """Return a frozen language model with its own tokens, whatever the policy's are."""
        shown = self.status(f"loading {path}")
        with shown, model_loading(self.cfg.runtime, self.world):
            model = load_causal_lm(self.cfg.model, str(path), unpadded=self._unpadded)
        return self.network(self._fitted(model, str(path)))

    def _fitted(self, model: PreTrainedModel, where: str) -> PreTrainedModel:
        """Use as many threads as the stage's largest model has work for, unless a number is set.

        A model with broken weights is refused here, before a loss of NaN blames the learning rate.
        """
        if found := not_finite(local_parameters(model, self.world)):
            raise UserError(
                f"the model {where} is broken: its weight {found[0]} holds {found[1]}; download or copy "
                "it again, or name another one"
            )
        self.largest = max(self.largest, num_parameters(model))
        if self.cfg.runtime.num_threads is None:
            torch.set_num_threads(threads_for(self.largest, self.threads))
        return model

    def sampling_params(self, *, temperature: float) -> SamplingParams:
        """Return how this stage samples responses."""
        cfg = self.cfg
        return SamplingParams(
            max_new_tokens=cfg.data.max_response_tokens,
            temperature=temperature,
            end_ids=self.renderer.end_ids,
            pad_id=self.renderer.pad_id,
            reference=cfg.runtime.reference_implementation,
            cuda_graphs=cfg.runtime.cuda_graphs is Graphs.auto,
        )

    def engine(
        self, model: PreTrainedModel, optim: Optim, *, ema_decay: float | None = None
    ) -> Engine:
        """Return the model, to be trained."""
        if self.cfg.runtime.compile:
            model = compile_blocks(model, self.device.torch)
        return open_engine(
            model,
            optim=optim,
            device=self.device,
            world=self.world,
            runtime=self.cfg.runtime,
            ema_decay=ema_decay,
        )

    def network(self, model: PreTrainedModel) -> Network:
        """Return the model, frozen."""
        return open_network(
            freeze(model), device=self.device, world=self.world, runtime=self.cfg.runtime
        )

    def export(self, engine: Engine, folder: Path) -> None:
        """Write a model with the tokenizer, template and end tokens it was made with."""
        with self.clock.phase("save"), write_errors(folder, FREE, SafetensorError):
            export(
                engine.model,
                with_heartbeat(engine.weights(), "writing the model"),
                self.renderer.tokenizer,
                folder,
                end_ids=self.renderer.end_ids,
                pad_id=self.renderer.pad_id,
            )

    def seed_dropout(self, *place: object) -> None:
        """Seed dropout by the step and the process, so that earlier draws do not matter."""
        torch.manual_seed(stream_seed(self.cfg.seed, "dropout", self.world.rank, *place))

    def require_whole_shares(self, sizes: dict[str, int], *, unit: int = 1) -> None:
        """Refuse global batches that the processes cannot divide evenly into parts of whole units."""
        whole = unit * self.world.size
        for key, size in sizes.items():
            if size % whole:
                below = size - size % whole
                units = f" in groups of {unit}" if unit > 1 else ""
                raise UserError(
                    f"{key}={size} cannot be divided{units} among {self.world.size} processes: use "
                    f"{f'{below} or ' if below else ''}{below + whole}, "
                    "or another runtime.num_processes"
                )

    @property
    def _unpadded(self) -> bool:
        return not self.cfg.runtime.reference_implementation


def room_of(config: PretrainedConfig) -> int | None:
    """Return how many positions the model knows; None where it names no limit."""
    text = config.get_text_config()
    return num_positions({name: getattr(text, name, None) for name in NAMES})


def open_context(cfg: Config, tokenizer_from: Path | None = None) -> StageContext:
    """Seed everything; use the base model's tokenizer, or the parent stage's."""
    seed_everything(cfg.seed)
    renderer = open_renderer(cfg, tokenizer_from)
    device = pick_device(cfg.runtime)
    clock = Clock(peak=lambda: world.size * measured_peak_flops(device.torch, device.dtype))
    world = open_world(
        device.torch,
        timeout=2 * cfg.runtime.timeout,  # the watchdog reports before torch gives up
        grouped=cfg.runtime.deepspeed is not None,
        waiting=lambda: clock.phase("idle"),
    )
    clock.meter(energy_meter(device.torch, world))
    return StageContext(cfg=cfg, device=device, world=world, renderer=renderer, clock=clock)


def open_renderer(cfg: Config, tokenizer_from: Path | None) -> Renderer:
    """Return the renderer of a model's tokenizer, of the base model's without one."""
    path = None if tokenizer_from is None else str(tokenizer_from)
    return build(
        load_tokenizer(cfg.model, path),
        template=cfg.data.template,
        system=cfg.data.system,
        date=cfg.data.date,
        also_stop=stop_ids(cfg.model, path),
    )


def num_parameters(model: torch.nn.Module) -> int:
    """Return how many parameters a model has, counted completely where ZeRO-3 has sharded them."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())


def parent_model(inputs: dict[str, Path], role: str) -> Path:
    """Return the model folder of a parent."""
    return model_folder(inputs[role])
