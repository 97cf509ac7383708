"""G. Evaluation: judges, other prompts, suites, diversity, the watch, the page."""

import json
import re
from collections.abc import Callable, Sequence

from rlhf_cli.artifacts.layout import MANIFEST
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.artifacts.results import RESULTS
from rlhf_cli.artifacts.store import file_records
from tests.trials.place import SMALL, Place
from tests.trials.row import Came, Row
from tests.trials.samples import demonstrations, lines

Content = str | bytes
QUESTIONS = lines(demonstrations(12))
CROWS = "sent_more,sent_less,bias_type\nThe boy ran.,The girl ran.,gender\n"
TRUTH = "Question,Best Answer,Correct Answers,Incorrect Answers\nIs it?,Yes,Yes; It is,No\n"
PROBE = "polite:\n- {prompt: Hello there, better: Hello., worse: Go away.}\n"
OTHER = "[{name: own, path: other.jsonl}]"
NOWHERE = "http://127.0.0.1:9/v1"  # the port "discard", where nothing listens


def evaluation(
    tried: str,
    *has: str,
    words: Sequence[str],
    files: dict[str, Content] | None = None,
    code: int = 2,
    stage: str = "evaluate",
) -> Row:
    """A dry run of a stage in this process, beside these files."""

    def play(place: Place) -> Came:
        for name, content in (files or {}).items():
            place.write(name, content)
        return place.rlhf("run", *SMALL, "name=x", f"stage={stage}", "dry_run=true", *words)

    return Row(tried=f"{tried} (`{' '.join(words)}`)", play=play, has=has, code=(code,), quick=True)


def evaluated(
    tried: str,
    *has: str,
    words: Sequence[str],
    files: dict[str, Content] | None = None,
    after: Callable[[Place], Came] | None = None,
) -> Row:
    """The evaluation of the finished run with other values, and what comes after it."""

    def play(place: Place) -> Came:
        place.finished()
        for name, content in (files or {}).items():
            place.write(name, content)
        came = place.command("run", *SMALL, "name=small", *words)
        return came + after(place) if after else came

    return Row(tried=f"{tried} (`{' '.join(words)}`)", play=play, has=has)


def results(place: Place) -> Came:
    """Return what results.json holds as text."""
    text = (place.folder / "runs/small/evaluate" / RESULTS).read_text()
    return Came(code=0, text=text)


def older_results(place: Place) -> Came:
    """Ask for the page of a run whose results another version of the program has published."""
    stage = place.finished() / "evaluate"
    file = stage / RESULTS
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 0}))
    manifest = read_manifest(stage)
    manifest.files = file_records(stage, frozenset({MANIFEST}))
    (stage / MANIFEST).write_text(manifest.seal().to_json())
    page = place.rlhf("report", "runs/small")
    text = (place.folder / "runs/small/report.html").read_text()
    return page + Came(code=page.code, text="\n".join(re.findall(r'[^"<>]*version 0[^"<>]*', text)))


def two_pages(place: Place) -> Came:
    place.finished()
    place.command("run", *SMALL, "name=other", "seed=2")
    return place.rlhf("report", "runs/small", "runs/other")


ROWS_OF_EVALUATION = [
    evaluation(
        "a judge that is not there",
        r"parents.check=nosuch is no local folder, the hub cannot be reached",
        words=["parents.check=nosuch"],
    ),
    evaluation(
        "a judge named twice",
        r"evaluation.judges=\[a, a\] must name each reward model once",
        words=["evaluation.judges=[a,a]"],
    ),
    evaluation(
        "win rates against no stage",
        r"evaluation.against=sfd is none of base, sft, ppo",
        words=["evaluation.against=sfd"],
    ),
    evaluation(
        "a set of prompts without a name",
        r"evaluation.ood\[0\].name='' must name the set",
        words=["evaluation.ood=[{path: other.jsonl}]"],
        files={"other.jsonl": QUESTIONS},
    ),
    evaluation(
        "two sets of one name",
        r"evaluation.ood=\[own, own\] must name each set differently",
        words=[f"evaluation.ood={OTHER[:-1]}, {OTHER[1:]}"],
        files={"other.jsonl": QUESTIONS},
    ),
    evaluation(
        "a set that is not there",
        r"data source other.jsonl does not exist",
        words=[f"evaluation.ood={OTHER}"],
    ),
    evaluation(
        "a suite that is not there",
        r"evaluation.suites.crows_pairs=crows.csv cannot be read",
        words=["evaluation.suites.crows_pairs=crows.csv"],
    ),
    evaluation(
        "a suite without a column",
        r"crows.csv:1: no column sent_less .*rename the columns",
        words=["evaluation.suites.crows_pairs=crows.csv"],
        files={"crows.csv": CROWS.replace("sent_less", "less")},
    ),
    evaluation(
        "a suite with an empty cell, line 3",
        r"truth.csv:3 \(row 2\): column Best Answer is empty",
        words=["evaluation.suites.truthfulqa=truth.csv"],
        files={"truth.csv": TRUTH + "Q,,a,b\n"},
    ),
    evaluation(
        "probes without a better answer",
        r"mine.yaml: polite.*better",
        words=["evaluation.probes=mine.yaml"],
        files={"mine.yaml": PROBE.replace("better", "best")},
    ),
    evaluation(
        "a language model as a judge that is not there",
        r"judge.model=nosuch is no local folder, the hub cannot be reached",
        words=["judge.model=nosuch"],
    ),
    evaluation(
        "a server without a model's name",
        r"judge.url=.* needs judge.model",
        words=[f"judge.url={NOWHERE}"],
    ),
    evaluation(
        "a question without its answers",
        r"judge.question=.* must have the places \{prompt\}, \{a\} and \{b\}",
        words=["judge.question='Which?'"],
    ),
    evaluation(
        "one sample for diversity",
        r"evaluation.diversity.samples=1 must be at least 2, or 0",
        words=["evaluation.diversity.samples=1"],
    ),
    evaluation(
        "weights chosen by a check that is none",
        r"ppo.watch.by=check needs parents.check",
        words=["ppo.watch.by=check"],
        stage="ppo",
    ),
    evaluation(
        "a watch that looks never",
        r"ppo.watch.every=0 must be positive or null",
        words=["ppo.watch.every=0"],
        stage="ppo",
    ),
    evaluation(
        "a utility that is no number",
        r"tiny_world.wrong=nan is not a finite number",
        words=["tiny_world.wrong=nan"],
        stage="sft",
    ),
    evaluated(
        "prompts of another file",
        r'"prompts": "own"',
        words=[f"evaluation.ood={OTHER}"],
        files={"other.jsonl": QUESTIONS},
        after=results,
    ),
    evaluated(
        "a judge that does not answer",
        r"did not answer",
        words=["judge.model=m", f"judge.url={NOWHERE}"],
    ),
    evaluated(
        "the base model as a judge",
        r"wins by judge",
        words=["judge.model=tiny_xs", "judge.chat=false"],
    ),
    evaluated("without the true utility", r"^PPO: ", words=["evaluation.gold=false"]),
    evaluated(
        "without diversity and probes",
        r"evaluate: done",
        words=["evaluation.diversity.samples=0", "evaluation.probes=null"],
    ),
    Row(
        tried="the page of results of another version (`rlhf report`)",
        play=older_results,
        has=(r"version 0",),
    ),
    Row(tried="two runs side by side (`rlhf report A B`)", play=two_pages, has=(r"report",)),
]
