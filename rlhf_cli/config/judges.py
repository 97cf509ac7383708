"""Which models judge the answers of an evaluation, beside the reward model that was trained against."""

from rlhf_cli.config.schema.run import Config

CHECK, LANGUAGE_MODEL = "parents.check", "judge.model"


def reward_judges(cfg: Config) -> dict[str, str]:
    """Return {key: folder or hub id} of the reward models that judge."""
    found = {CHECK: cfg.parents.check} if cfg.parents.check else {}
    return found | {
        f"evaluation.judges[{i}]": place for i, place in enumerate(cfg.evaluation.judges)
    }


def language_judge(cfg: Config) -> dict[str, str]:
    """Return {key: folder or hub id} of the language model that judges; nothing where a server does."""
    model, url = cfg.judge.model, cfg.judge.url
    return {LANGUAGE_MODEL: model} if model is not None and url is None else {}
