"""An independent answer to "which GPUs": every subset is looked at, by the objective that
src/model/gpu_choose.h documents.  Written from that text, not from the program."""
import itertools

WAYS = {"": 0, "X": 0, "SYS": 1, "NODE": 4, "PHB": 5, "PXB": 6, "PIX": 8}


def pair_score(text):
    nvlinks, way = 0, text
    if text.startswith("NV"):
        number, _, way = text[2:].partition("/")
        nvlinks = int(number)
    return 16384 * nvlinks + WAYS[way]


class Oracle:
    def __init__(self, fleet):
        self.gpus = fleet["list"]
        self.n = len(self.gpus)
        self.w = [[pair_score(fleet["links"][a][b]) if a != b else 0 for b in range(self.n)]
                  for a in range(self.n)] if "links" in fleet else [[0] * self.n for _ in range(self.n)]
        self.partitions = [frozenset(p) for p in fleet.get("partitions", []) if len(p) >= 2]
        self.types = {}
        for i, g in enumerate(self.gpus):
            if g.get("mig_profile") or not g.get("mig_mode"):
                self.types.setdefault((g["name"], g.get("mig_profile")), set()).add(i)

    def score(self, s):
        return sum(self.w[a][b] for a, b in itertools.combinations(sorted(s), 2))

    def worth(self, s, fabric):
        if fabric:
            return sum(self.score(p) for p in self.partitions if p <= s)
        return self.score(s)

    def nodes(self, s):
        return len({self.gpus[i].get("numa_node", 65535) for i in s})

    @staticmethod
    def order(s):
        """Smaller for the set that has the lowest position which is in one alone."""
        return tuple(0 if i in s else 1 for i in range(64))

    def instances(self, free, avail, keep, k):
        chosen = set(keep)
        parent = [g.get("parent") or g["uuid"] for g in self.gpus]
        first = {}
        for i, g in enumerate(self.gpus):
            if g.get("mig_profile"):
                first.setdefault(parent[i], i)
        while len(chosen) < k:
            left = [i for i in range(self.n) if i in free and i not in chosen and
                    self.gpus[i].get("mig_profile")]
            chosen.add(min(sorted(avail - chosen), key=lambda i: (
                sum(parent[o] == parent[i] for o in left), first[parent[i]],
                self.gpus[i].get("gi", 0), self.gpus[i].get("ci", 0), i)))
        return chosen

    def candidates(self, avail, keep, k, fabric):
        if fabric and k >= 2:
            return [p for p in self.partitions if len(p) == k and p <= avail and keep <= p]
        rest = sorted(avail - keep)
        return [keep | set(c) for c in itertools.combinations(rest, k - len(keep))]

    def best(self, free, wanted, keep, k):
        """(set, score, loss, NUMA nodes), or None.  `wanted`: (name, profile) pairs."""
        found = []
        for kind, members in self.types.items():
            avail = (free | keep) & members
            if kind not in wanted or not keep <= members or len(avail) < k or len(keep) > k:
                continue
            if kind[1]:
                s = self.instances(free, avail, keep, k)
                found.append((0, 0, self.nodes(s), self.order(s), s))
                continue
            fabric = any(p & members for p in self.partitions)
            value = self.worth(avail, fabric)
            some = []
            top = -1
            for s in self.candidates(avail, keep, k, fabric):  # the loss of equals alone is needed
                score = self.score(s)
                if score > top:
                    top, some = score, []
                if score == top:
                    some.append(s)
            for s in some:
                found.append((-top, value - self.worth(avail - s, fabric), self.nodes(s), self.order(s), s))
        if not found:
            return None
        top, loss, nodes, _, s = min(found, key=lambda f: f[:4])
        return frozenset(s), -top, loss, nodes
