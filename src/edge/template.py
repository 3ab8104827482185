#!/usr/bin/env python3
"""The template of HAProxy's configuration as C.  usage: template.py IN OUT.c"""
import sys

with open(sys.argv[1], "rb") as f:
    data = f.read()
with open(sys.argv[2], "w", encoding="ascii") as f:
    f.write("/* Made from data/edge/haproxy.cfg.in. */\nextern const char edge_template[];\nconst char edge_template[] = {\n")
    for i in range(0, len(data), 16):
        f.write("        %s,\n" % ", ".join("%d" % b for b in data[i:i + 16]))
    f.write("        0 };\n")
