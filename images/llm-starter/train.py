#!/usr/bin/python3
"""Train the starter's text model: train.py CORPUS MODEL.json

A word model of order 3: for each pair of words (and each single word, for pairs never seen) how often
each next word followed.  Small enough to read, large enough to say something about GPUs.
"""
import collections
import json
import re
import sys

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9'%/-]*|[.,;:!?]")
END = "."


def tokens_of(text):
    return TOKEN.findall(text)


def train(text):
    words = tokens_of(text)
    vocabulary = sorted(set(words))
    number = {word: i for i, word in enumerate(vocabulary)}
    pairs = collections.defaultdict(collections.Counter)
    singles = collections.defaultdict(collections.Counter)
    for a, b, c in zip(words, words[1:], words[2:]):
        pairs[f"{number[a]} {number[b]}"][number[c]] += 1
        singles[str(number[b])][number[c]] += 1
    flat = lambda table: {key: [n for pair in sorted(counts.items()) for n in pair]
                          for key, counts in sorted(table.items())}
    return {"words": vocabulary, "trained_on_words": len(words), "pairs": flat(pairs),
            "singles": flat(singles)}


def main(argv):
    if len(argv) != 3:
        sys.exit(__doc__)
    with open(argv[1], encoding="utf-8") as source:
        model = train(source.read())
    with open(argv[2], "w", encoding="utf-8") as out:
        json.dump(model, out, separators=(",", ":"))


if __name__ == "__main__":
    main(sys.argv)
