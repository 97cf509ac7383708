"""Evaluate the base model, every policy and best-of-n: their answers to the same held-out prompts."""

from dataclasses import replace
from pathlib import Path

from rlhf_cli.artifacts.layout import MANIFEST
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.artifacts.results import write_results
from rlhf_cli.config.judges import CHECK, reward_judges
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.embedded import EmbeddedTask, common_task
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.metrics import EvalResult, Row, measure
from rlhf_cli.evaluation.task_suite import task_metrics
from rlhf_cli.report.table import COSTS, write_table
from rlhf_cli.report.task_table import write_tasks
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.evaluate.comparisons import held_out_comparisons
from rlhf_cli.stages.evaluate.diversity import open_diversity
from rlhf_cli.stages.evaluate.evaluator import (
    Evaluator,
    candidates,
    evaluate_each,
    frozen,
    num_candidates,
)
from rlhf_cli.stages.evaluate.figures import (
    REWARD_MODEL,
    baseline_name,
    notes_of,
    references,
    results_of,
)
from rlhf_cli.stages.evaluate.files import ANSWERS, write_answers
from rlhf_cli.stages.evaluate.imitation import Imitation
from rlhf_cli.stages.evaluate.preferences import ask_language_model
from rlhf_cli.stages.evaluate.probes import Probes
from rlhf_cli.stages.evaluate.prompt_sets import PromptSets, open_prompts
from rlhf_cli.stages.evaluate.reward_trial import RewardTrial
from rlhf_cli.stages.evaluate.suites import open_suites
from rlhf_cli.stages.reward_scorer import RewardModel, open_judge, reward_folders
from rlhf_cli.stages.samples import compared_prompts, example, last_turn, response_text
from rlhf_cli.stages.stage_run import open_recorder
from rlhf_cli.stages.task_evaluation import TASK_ANSWERS, open_suite, write_task_answers
from rlhf_cli.telemetry.recorder import Recorder

INTERVALS = "mean [95 % interval over prompts]; one response per prompt, sampled at temperature 1"
WINS = "wins: share of prompts preferred to {against}'s answer; by score alone it proves nothing"
KL_NOTE = "KL: nats per response to the SFT model; for best-of-n the bound log n - (n-1)/n"
COST_NOTE = (
    "responses sampled to seconds: what the stage took, without loading; best-of-n: these answers"
)


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Write table.json, results.json and answers.jsonl; the numbers of the table are the metrics."""
    known = {name: parent_model(inputs, name) for name in inputs}
    context = open_context(cfg, known[next(iter((*candidates(known), *known)))])
    sets = open_prompts(context)
    if not sets.prompts:
        known.pop("rm", None)  # it has nothing to score
    with open_recorder(
        context, out, stage="evaluate", total_steps=num_candidates(cfg, known)
    ) as recorder:
        evaluator = open_evaluator(context, sets, known, inputs)
        for note in notes_of(evaluator, sets):
            recorder.note(note)
        results = evaluate_all(evaluator, known, recorder)
        reference = references(evaluator)
        ask_language_model(evaluator, results, reference)
        for note in evaluator.missing:
            recorder.note(note)
    for stage, name in candidates(known).items():
        results[name].costs = costs_of(inputs[stage])
    if not sets.prompts:
        return suite_metrics(evaluator, out)
    against = baseline_name(cfg)
    held_out = {name: found.of(sets.held_out) for name, found in results.items()}
    baseline = held_out.get(against)
    rows = {name: measure(found, baseline, seed=cfg.seed) for name, found in held_out.items()}
    folders = {stage: inputs[stage] for stage in candidates(known)} | inputs
    found = results_of(evaluator, sets, results, reference, folders)
    if context.world.is_main:
        title = f"Evaluation on {len(held_out['base'].prompts)} held-out prompts"
        write_table(out, rows, title=title, notes=notes_on(evaluator.task, against))
        write_answers(out / ANSWERS, results, evaluator.task, sets.names)
        write_results(out, found)
        if evaluator.suites is not None:
            evaluator.suites.write(out)
    return flat(rows) | suite_metrics(evaluator, out)


def open_evaluator(
    context: StageContext, sets: PromptSets, known: dict[str, Path], inputs: dict[str, Path]
) -> Evaluator:
    """Return the evaluator with all that it asks, judges by and compares with."""
    cfg, prompts = context.cfg, sets.prompts
    task = common_task(one.record.origin.source for one in prompts[: sets.num_held_out])
    probes, comparisons = Probes.of(context), held_out_comparisons(context)
    needed = [*prompts, *probes.prompts, *compared_prompts(comparisons)]
    reward = RewardModel.load(context, reward_folders(inputs), needed) if "rm" in known else None
    judges = open_judges(context, needed) if prompts else {}
    models = {} if reward is None else {REWARD_MODEL: reward} | judges
    suites = open_suites(context)
    held_out = prompts[: sets.num_held_out]
    diversity = open_diversity(context, held_out, task if cfg.evaluation.gold else None)
    parts = [suites, diversity, Imitation(context=context, comparisons=comparisons)]
    return Evaluator(
        context=context,
        prompts=prompts,
        num_held_out=sets.num_held_out,
        task=task if cfg.evaluation.gold else None,
        suite=open_suite(context),
        reward=reward,
        judges=judges,
        reference=frozen(context, known["sft"]) if "sft" in known else None,
        parts=[part for part in parts if part is not None],
        suites=suites,
        diversity=diversity,
        probes=probes,
        trial=RewardTrial(context=context, models=models, comparisons=comparisons),
    )


def open_judges(context: StageContext, prompts: list[EncodedPrompt]) -> dict[str, RewardModel]:
    """Return {name: reward model} of parents.check and evaluation.judges, whose name is the path."""
    named = reward_judges(context.cfg)
    return {
        "check" if key == CHECK else path: open_judge(context, path, prompts)
        for key, path in named.items()
    }


def costs_of(folder: Path) -> dict[str, float]:
    """Return what a stage took, by its manifest; nothing of a model folder."""
    if not (folder / MANIFEST).is_file():
        return {}
    metrics = read_manifest(folder).metrics
    costs = {name: metrics.get(f"cost/{name}") for name in COSTS}
    return {name: value for name, value in costs.items() if value is not None}


def suite_metrics(evaluator: Evaluator, out: Path) -> dict[str, float]:
    """Write the figures of the tasks, where there are tasks, and return their means."""
    if evaluator.suite is None:
        return {}
    figures = evaluator.suite.figures(evaluator.outcomes)
    figures["parameters"] = evaluator.parameters
    if evaluator.context.world.is_main:
        write_tasks(out, figures)
        write_task_answers(out / TASK_ANSWERS, evaluator.suite, evaluator.outcomes)
    return task_metrics(figures)


def notes_on(task: EmbeddedTask | None, against: str) -> list[str]:
    """Return the notes on how to read the table."""
    own = [] if task is None else [task.NOTE]
    return [INTERVALS, WINS.format(against=against), KL_NOTE, COST_NOTE, *own]


def evaluate_all(
    evaluator: Evaluator, known: dict[str, Path], recorder: Recorder
) -> dict[str, EvalResult]:
    """Return {name: result} of all candidates that there are."""
    found = {}
    for name, result in evaluate_each(evaluator, known):
        found[name] = replace(result, name=name)
        recorder.log({"eval/candidates": float(len(found))}, len(found))
    recorder.samples("the same prompts, answered by each", sample_rows(evaluator, found))
    return found


def sample_rows(evaluator: Evaluator, found: dict[str, EvalResult]) -> list[dict[str, str]]:
    """Return a few prompts with every candidate's answer."""
    prompts = evaluator.prompts
    return [
        {"prompt": last_turn(prompts[i].record.messages)}
        | {name: response_text(result.answers[i]) for name, result in found.items()}
        for i in range(min(evaluator.context.cfg.samples, len(prompts)))
    ]


def flat(rows: dict[str, Row]) -> dict[str, float]:
    """Return {"SFT": {"score": (m, l, h)}} as {"eval/SFT/score": m}."""
    return {
        f"eval/{name}/{metric}": interval[0]
        for name, row in rows.items()
        for metric, interval in row.items()
        if interval is not None
    }


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: how many prompts, and one of them."""
    context = open_context(cfg)
    sets, suite = open_prompts(context), open_suite(context)
    num = sets.num_held_out
    facts = {
        "held-out prompts": str(num),
        "answers": f"{num} a candidate, best of {cfg.evaluation.best_of_n}",
    }
    facts |= {f"prompts of {name}": str(len(index)) for name, index in sets.ood.items()}
    ids = sets.prompts[0].ids if sets.prompts else []
    if suite is not None:
        facts["tasks"] = suite.description
        ids = ids or suite.tasks[0].direct[0].prompt_ids
    if suites := open_suites(context):
        facts["suites"] = suites.description
    shown = example(context.renderer, ids, [False] * len(ids))
    return Preview(facts=facts, example=shown, notes=sets.notes)
