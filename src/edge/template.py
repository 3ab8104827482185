#!/usr/bin/env python3
"""The templates of HAProxy's configuration as C.  usage: template.py OUT.c [NAME IN]..."""
import sys

with open(sys.argv[1], "w", encoding="ascii") as f:
    f.write("/* Made from data/edge. */\n")
    for name, path in zip(sys.argv[2::2], sys.argv[3::2]):
        with open(path, "rb") as g:
            data = g.read()
        f.write("extern const char %s[];\nconst char %s[] = {\n" % (name, name))
        for i in range(0, len(data), 16):
            f.write("        %s,\n" % ", ".join("%d" % b for b in data[i:i + 16]))
        f.write("        0 };\n")
