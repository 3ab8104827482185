"""prometheus.py - a strict reader of the text exposition format, 0.0.4: it takes what Prometheus takes
and, beyond that, asks for what good exporters do (every family has HELP and TYPE, and is in one piece)."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*"
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
SAMPLE = re.compile(r"(%s)(?:\{(.*)\})? (\S+)(?: (-?\d+))?" % NAME)
PAIR = re.compile(r'(%s)="((?:[^"\\\n]|\\[\\n"])*)"(,|$)' % LABEL)
UNESCAPE = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}


def labels(text):
    """The pairs within the braces."""
    found, at = {}, 0
    while at < len(text):
        m = PAIR.match(text, at)
        assert m, "labels: %r" % text[at:]
        assert m[1] not in found, "label %s twice: %r" % (m[1], text)
        assert not m[1].startswith("__"), m[1]
        found[m[1]] = re.sub(r'\\[\\n"]', lambda e: UNESCAPE[e[0]], m[2])
        assert m[3] or m.end() == len(text), text
        at = m.end()
    assert not text.endswith(","), text
    return found


def number(text):
    if text in ("NaN", "+Inf", "-Inf"):
        return float(text.replace("Inf", "inf"))
    assert re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text), "not a number: %r" % text
    return float(text)


class Metrics:
    def __init__(self, body):
        assert isinstance(body, bytes)
        text = body.decode("utf-8")
        assert text.endswith("\n") and "\r" not in text
        self.types, self.help, self.samples = {}, {}, {}
        self.now = None
        for line in text[:-1].split("\n"):
            try:
                self.line(line)
            except AssertionError as e:
                raise AssertionError("%r: %s" % (line, e)) from e

    def line(self, line):
        if line.startswith("#"):
            m = re.fullmatch(r"# (HELP|TYPE) (%s) (.*)" % NAME, line)
            assert m, "no comment that is one of ours"
            if m[1] == "HELP":
                assert m[2] not in self.help, "HELP twice, or the family is in two pieces"
                assert m[3].strip(), "no help"
                self.help[m[2]] = m[3]
                self.now = None
            else:
                assert m[3] in TYPES and m[2] not in self.types and m[2] in self.help
                self.types[m[2]] = m[3]
                self.now = m[2]
            return
        m = SAMPLE.fullmatch(line)
        assert m, "no sample"
        name, pairs, value = m[1], labels(m[2] or ""), number(m[3])
        assert name == self.now, "not in the family %s" % self.now
        assert m[4] is None, "a time"
        key = (name, tuple(sorted(pairs.items())))
        assert key not in self.samples, "twice"
        if self.types[name] == "counter":
            assert value >= 0 and not math.isnan(value)
            assert name.endswith("_total") or name.startswith("DCGM_"), "a counter's name"
        self.samples[key] = value

    def all(self, name, **want):
        """[(labels, value)] of the samples that have these labels."""
        return [(dict(k[1]), v) for k, v in self.samples.items()
                if k[0] == name and want.items() <= dict(k[1]).items()]

    def one(self, name, **want):
        found = self.all(name, **want)
        assert len(found) == 1, (name, want, found)
        return found[0][1]
