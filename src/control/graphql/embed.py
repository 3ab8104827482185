#!/usr/bin/python3
"""embed.py TEXT OUT.c: the schema text as an array of the program."""
import sys

data = open(sys.argv[1], "rb").read()
with open(sys.argv[2], "w") as out:
    out.write('/* generated from %s */\n#include "control/graphql/schema.h"\n\n'
              % sys.argv[1].rsplit("/", 1)[-1])
    out.write("const char gql_schema_text[] = {\n")
    for i in range(0, len(data), 20):
        out.write("        " + "".join("%d," % b for b in data[i:i + 20]) + "\n")
    out.write("        0,\n};\nconst size_t gql_schema_text_len = sizeof gql_schema_text - 1;\n")
