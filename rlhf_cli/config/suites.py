"""Which suites of `evaluation.suites` are named, and which text classifiers these need."""

from rlhf_cli.config.schema.evaluation import Suites

SECTION = "evaluation.suites"
SUITES = ("toxicity", "bias", "crows_pairs", "winogender", "truthfulqa", "xstest")
CLASSIFIERS = ("toxicity_model", "sentiment_model")


def suite_files(suites: Suites) -> dict[str, str]:
    """Return {suite: path} of the suites that are named, in the order of the section."""
    paths = {
        "toxicity": suites.toxicity,
        "bias": suites.bias,
        "crows_pairs": suites.crows_pairs,
        "winogender": suites.winogender,
        "truthfulqa": suites.truthfulqa,
        "xstest": suites.xstest,
    }
    return {suite: path for suite, path in paths.items() if path is not None}


def classifiers(suites: Suites) -> dict[str, str]:
    """Return {key: folder or hub id} of the text classifiers that score the suites that are named."""
    named = suite_files(suites)
    found = {}
    if suites.toxicity_model is not None and named.keys() & {"toxicity", "bias"}:
        found["toxicity_model"] = suites.toxicity_model
    if suites.sentiment_model is not None and "bias" in named:
        found["sentiment_model"] = suites.sentiment_model
    return found
