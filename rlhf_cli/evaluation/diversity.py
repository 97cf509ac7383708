"""TEMPORARY stand-in until the branch diversity is merged."""

import torch


def repeats(text, n=4, times=3):
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return any(grams.count(one) >= times for one in set(grams))


def per_input_ead(texts, vocab):
    found = []
    for some in texts:
        eads = []
        for n in range(1, 6):
            grams = []
            for text in some:
                words = text.replace(".", "").replace("\n", " ").split()
                grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            c = len(grams)
            eads.append(len(set(grams)) / (vocab * (1 - ((vocab - 1) / vocab) ** c)) if c else 0.0)
        found.append(sum(eads) / 5)
    return torch.tensor(found, dtype=torch.float64)
