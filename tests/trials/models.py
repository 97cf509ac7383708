"""Valid and invalid model folders, made from the embedded tiny model."""

import json
import shutil
from pathlib import Path

from tests.trials.place import CHECKOUT, Place

TINY = CHECKOUT / "rlhf_cli" / "assets" / "tiny"


def tiny(place: Place, name: str = "mine", **changed: object) -> Path:
    """Return a copy of the embedded model with changes in its config.json."""
    folder = place.folder / name
    shutil.copytree(TINY, folder)
    if changed:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    return folder


def without(place: Place, *names: str) -> Path:
    """Return a copy without these files."""
    folder = tiny(place)
    for name in names:
        (folder / name).unlink()
    return folder


def truncated(place: Place) -> Path:
    """Return a copy with truncated weights."""
    path = tiny(place) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def pickled(place: Place) -> Path:
    """Return a copy with weights in pytorch_model.bin."""
    folder = tiny(place)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def custom_code(place: Place) -> Path:
    """Return a folder that needs custom code."""
    folder = tiny(place, model_type="mine", auto_map={"AutoConfig": "mine.MyConfig"})
    (folder / "mine.py").write_text("raise SystemExit('code of the folder ran')\n")
    return folder


def tokenizer_alone(place: Place) -> Path:
    """Return a folder with a tokenizer and no model."""
    return without(place, "model.safetensors", "config.json", "generation_config.json")


def other_tokenizer(place: Place, name: str = "words", size: int = 400) -> Path:
    """Return a folder with another tokenizer, byte-level."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    names = ["<pad>", "<end>", *(f"<more{n}>" for n in range(max(0, size - 400)))]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=names, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(["the cat sat on the mat", "a dog and a bird"] * 9, trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")
    whole.save_pretrained(place.folder / name)
    return place.folder / name


def classifier(place: Place, *, labels: int = 1, name: str = "classifier", tokens: bool = True):
    """Return a random sequence classifier of transformers, with the tiny tokenizer or none."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(TINY, num_labels=labels)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(place.folder / name)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if tokens:
            shutil.copy(TINY / file, place.folder / name / file)
    return place.folder / name


def foreign_classifier(place: Place, *, positions: int) -> Path:
    """Return a classifier with other tokens and this many positions."""
    from transformers import AutoModelForSequenceClassification, GPT2Config

    folder = other_tokenizer(place, "foreign")
    config = GPT2Config(
        vocab_size=400, n_positions=positions, n_embd=32, n_layer=1, n_head=2, num_labels=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder
