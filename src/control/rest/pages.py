#!/usr/bin/env python3
"""The pages of the web terminal as C.  usage: pages.py DIR XTERM OUT.c

DIR has our own files; XTERM is where xterm.js lies as a package of the distribution (node-xterm), whose modules
are put into one file here, with its licence, because browsers know no require()."""
import os
import re
import sys

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml"}
OWN = ("index.html", "icon.svg", "terminal.css", "terminal.js")
REQUIRE = re.compile(r"""\brequire\((["'])(\.[^"']*)\1\)""")


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def first(what, *paths):
    for path in paths:
        if os.path.exists(path):
            return path
    sys.exit("pages.py: there is no %s in %s; tools/deps.sh build" % (what, " or ".join(paths)))


def module(lib, name, into):
    """A CommonJS module and what it requires."""
    if name in into:
        return
    into[name] = None  # on the way: they require each other in rings
    text = re.sub(r"(?m)^//# sourceMappingURL=.*$", "", read(lib, name + ".js"))

    def absolute(match):
        other = os.path.normpath(os.path.join(os.path.dirname(name), match.group(2)))
        module(lib, other, into)
        return 'require("%s")' % other

    into[name] = REQUIRE.sub(absolute, text)


def bundle(xterm):
    modules = {}
    module(os.path.join(xterm, "lib"), "public/Terminal", modules)
    notice = read(first("licence of xterm.js", "/usr/share/doc/node-xterm/copyright")).replace("*/", "* /")
    parts = ["/* xterm.js as the distribution's package node-xterm has it.\n\n%s*/\n" % notice,
             "(function () {\nvar files = {}, made = {};\n"
             "function require(name) {\n"
             "    if (!made[name]) {\n"
             "        made[name] = { exports: {} };\n"
             "        files[name].call(window, require, made[name], made[name].exports);\n"
             "    }\n"
             "    return made[name].exports;\n"
             "}\n"]
    parts += ['files["%s"] = function (require, module, exports) {\n%s\n};\n' % m for m in sorted(modules.items())]
    parts.append('window.Terminal = require("public/Terminal").Terminal;\n})();\n')
    return "".join(parts)


def c_bytes(text):
    data = text.encode()
    return ",\n".join("        " + ", ".join("%d" % b for b in data[i:i + 20]) for i in range(0, len(data), 20))


def main():
    own, xterm, out = sys.argv[1:]
    first("xterm.js 3", os.path.join(xterm, "lib/public/Terminal.js"))
    files = [(name, read(own, name)) for name in OWN]
    files.append(("xterm.js", bundle(xterm)))
    files.append(("xterm.css", read(first("xterm.css", "/usr/share/javascript/xterm/xterm.css"))))
    with open(out, "w", encoding="ascii") as f:
        f.write('/* Made by pages.py. */\n#include "control/rest/terminal.h"\n\n')
        for i, (_, text) in enumerate(files):
            f.write("static const unsigned char file_%d[] = {\n%s };\n" % (i, c_bytes(text)))
        f.write("const struct page_file page_files[] = {\n")
        for i, (name, _) in enumerate(files):
            f.write('        { "%s", "%s", file_%d, sizeof file_%d },\n' % (name, TYPES[os.path.splitext(name)[1]], i, i))
        f.write("};\nconst size_t page_n_files = sizeof page_files / sizeof page_files[0];\n")


main()
