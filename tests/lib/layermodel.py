"""Layers as tars and, beside it, what they must come to: a model of unpacking one layer over another,
written without a look at the store's own code."""
import dataclasses
import io
import os
import stat
import tarfile


@dataclasses.dataclass(eq=False)
class Inode:
    kind: str                   # dir file symlink fifo
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0              # nanoseconds
    data: bytes = b""           # content or target
    xattrs: dict = dataclasses.field(default_factory=dict)


class LayerTar:
    """A tar and the tree of this layer alone, as unpacking entry by entry leaves it."""

    def __init__(self):
        self.file = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)
        self.tree = {"": (Inode("dir"), True)}   # path -> (inode, implied)
        self.opaque, self.whiteouts = set(), set()

    def bytes(self):
        self.tar.close()
        return self.file.getvalue()

    def _write(self, path, kind, inode, data=b"", link=""):
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid = kind, inode.mode, inode.uid, inode.gid
        info.size, info.linkname = len(data), link
        s, ns = divmod(inode.mtime, 10**9)
        info.mtime = s
        if ns:
            info.pax_headers["mtime"] = f"{s}.{ns:09d}"
        for k, v in inode.xattrs.items():
            info.pax_headers["SCHILY.xattr." + k] = v.decode("utf-8", "surrogateescape")
        self.tar.addfile(info, io.BytesIO(data))

    def _drop(self, path):
        for p in [p for p in self.tree if p == path or p.startswith(path + "/")]:
            del self.tree[p]
            self.opaque.discard(p)
        self.whiteouts = {p for p in self.whiteouts if not p.startswith(path + "/")}

    def _parents(self, path):
        parts = path.split("/")[:-1]
        for i in range(len(parts)):
            p = "/".join(parts[:i + 1])
            if p not in self.tree or self.tree[p][0].kind != "dir":
                self._drop(p)
                self.tree[p] = (Inode("dir"), True)

    def add(self, path, inode):
        kinds = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE,
                 "fifo": tarfile.FIFOTYPE}
        link = os.fsdecode(inode.data) if inode.kind == "symlink" else ""
        self._write(path or "./", kinds[inode.kind], inode,
                    inode.data if inode.kind == "file" else b"", link)
        if path:
            self._parents(path)
        if inode.kind != "dir" or (path in self.tree and self.tree[path][0].kind != "dir"):
            self._drop(path)
        self.tree[path] = (inode, False)

    def link(self, path, target):
        """False when an unpacker would refuse it; then nothing is written."""
        if target not in self.tree or self.tree[target][0].kind == "dir" or path == target or \
                target.startswith(path + "/") or path.startswith(target + "/"):
            return False
        inode = self.tree[target][0]
        self._write(path, tarfile.LNKTYPE, Inode("file", 0o600), link=target)
        self._parents(path)
        self._drop(path)
        self.tree[path] = (inode, False)
        return True

    def whiteout(self, path):
        head, _, leaf = path.rpartition("/")
        self._write((head + "/" if head else "") + ".wh." + leaf, tarfile.REGTYPE, Inode("file"))
        self._parents(path)
        self.whiteouts.add(path)

    def mark_opaque(self, path):
        self._write((path + "/" if path else "") + ".wh..wh..opq", tarfile.REGTYPE, Inode("file"))
        self._parents(path + "/x")
        self.opaque.add(path)


def merge(layers):
    """path -> Inode over all layers, bottom first."""
    below = {"": Inode("dir")}
    for layer in layers:
        gone = set()
        for p in below:
            parts = p.split("/")
            for i in range(len(parts)):
                q = "/".join(parts[:i + 1])
                if q in layer.whiteouts or (q != p and q in layer.opaque) or \
                        (p and "" in layer.opaque) or \
                        (q in layer.tree and layer.tree[q][0].kind != "dir"):
                    gone.add(p)
            if p and p in layer.tree and below[p].kind != "dir":
                gone.add(p)
        below = {p: i for p, i in below.items() if p not in gone}
        for p, (inode, implied) in layer.tree.items():
            if p in below and implied and below[p].kind == "dir" and p not in layer.opaque:
                continue  # a directory that hides all below has nothing of it
            below[p] = inode
    return below


def random_layer(rng, size, deep=3):
    layer = LayerTar()
    names = ["a", "b", "c", "a-b", "a.b", "..x", "!", "\x01", "d"]

    def path():
        return "/".join(rng.choice(names) for _ in range(rng.randint(1, deep)))

    def inode(kind):
        x = {}
        if kind in ("dir", "file"):
            for k in rng.sample(["user.a", "user.bb", "user.c.d"], rng.choice([0, 0, 0, 1, 2])):
                x[k] = bytes(rng.choices(b"abcdef", k=rng.randint(1, 300)))
        data = {"file": bytes(rng.choices(range(256), k=rng.choice([0, 1, 4095, 4096, 4097, 9000]))),
                "symlink": b"t" * rng.randint(1, 90)}.get(kind, b"")
        mode = 0o777 if kind == "symlink" else rng.choice([0o755, 0o4711, 0o1777, 0o600])
        return Inode(kind, mode, rng.choice([0, 1, 65535]), rng.choice([0, 7, 65535]),
                     rng.randint(0, 2**62) // 1000 * 1000, data, x)

    for _ in range(size):
        what = rng.random()
        if what < 0.1:
            layer.whiteout(path())
        elif what < 0.15:
            layer.mark_opaque(rng.choice([path(), path(), ""]))
        elif what < 0.25:
            layer.link(path(), rng.choice(sorted(layer.tree)))
        else:
            p = path() if rng.random() < 0.97 else ""
            layer.add(p, inode("dir" if not p else rng.choice(["dir", "dir", "file", "file", "symlink", "fifo"])))
    return layer


def differences(tree, root):
    """What a mounted tree has otherwise than the model says; an empty list when nothing."""
    found, seen, bad = {}, {}, []
    for base, dirs, files in os.walk(os.fsencode(root)):
        for name in [b"."] + dirs + files if base == os.fsencode(root) else dirs + files:
            p = os.path.normpath(os.path.join(base, name))
            rel = os.path.relpath(p, os.fsencode(root))
            found["" if rel == b"." else os.fsdecode(rel)] = p
    if set(found) != set(tree):
        bad.append(("names", sorted(set(found) ^ set(tree))[:20]))
    names = {}
    for p, inode in tree.items():
        names.setdefault(id(inode), []).append(p)
    for p, inode in tree.items():
        if p not in found:
            continue
        st, full = os.lstat(found[p]), found[p]
        kind = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink",
                stat.S_IFIFO: "fifo"}.get(stat.S_IFMT(st.st_mode), "?")
        want = (inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime)
        have = (kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns)
        if want != have:
            bad.append((p, want, have))
            continue
        if kind == "symlink" and os.readlink(full) != inode.data:
            bad.append((p, "target"))
        if kind == "file" and (st.st_size != len(inode.data) or
                               open(full, "rb").read() != inode.data):
            bad.append((p, "content"))
        if kind != "symlink" and kind != "fifo":
            x = {k: os.getxattr(full, k) for k in os.listxattr(full) if not k.startswith("trusted.")}
            if x != inode.xattrs:
                bad.append((p, "xattrs", sorted(x), sorted(inode.xattrs)))
        if kind == "dir":
            links = 2 + sum(1 for q, i in tree.items() if i.kind == "dir" and q and
                            q.rpartition("/")[0] == p)
        else:
            links = len(names[id(inode)])
            seen.setdefault(id(inode), st.st_ino)
            if seen[id(inode)] != st.st_ino:
                bad.append((p, "is another inode"))
        if st.st_nlink != links:
            bad.append((p, "links", st.st_nlink, links))
    return bad
