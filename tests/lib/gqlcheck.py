"""Hold GraphQL requests of our own clients against schema/tensorone.graphqls.

A small reader of just what those requests use: one operation, variables, arguments, nested
selections.  The server's own parser is tested elsewhere; here the point is that a field which the
schema does not have, or a missing selection, is found without a server."""
import os
import re

from programs import ROOT

TOKEN = re.compile(r'\s+|,|#[^\n]*|("""(?:.|\n)*?"""|"(?:\\.|[^"\\])*"|\.\.\.|[A-Za-z_]\w*|-?\d+(?:\.\d+)?|[{}()\[\]:!=$|@&])')
SCALARS = {"String", "Int", "Float", "Boolean", "ID", "DateTime", "JSON", "Void", "Port"}


class Invalid(Exception):
    pass


def tokens(text):
    out, at = [], 0
    while at < len(text):
        m = TOKEN.match(text, at)
        if not m:
            raise Invalid(f"cannot read {text[at:at + 20]!r}")
        at = m.end()
        if m.group(1):
            out.append(m.group(1))
    return out


class Reader:
    def __init__(self, text):
        self.t, self.i = tokens(text), 0

    def peek(self):
        return self.t[self.i] if self.i < len(self.t) else None

    def next(self, want=None):
        tok = self.peek()
        if tok is None or (want and tok != want):
            raise Invalid(f"expected {want!r}, found {tok!r}")
        self.i += 1
        return tok

    def skip(self, tok):
        if self.peek() == tok:
            self.i += 1
            return True
        return False

    def type(self):
        """[Name!]! -> (name, required, is a list)"""
        if self.skip("["):
            name = self.type()[0]
            self.next("]")
            return name, self.skip("!"), True
        return self.next(), self.skip("!"), False

    def strings(self):
        while self.peek() and self.peek().startswith('"'):
            self.i += 1

    def value(self):
        tok = self.next()
        if tok == "$":
            return ("var", self.next())
        if tok == "{":
            out = {}
            while not self.skip("}"):
                key = self.next()
                self.next(":")
                out[key] = self.value()
            return ("object", out)
        if tok == "[":
            out = []
            while not self.skip("]"):
                out.append(self.value())
            return ("list", out)
        return ("literal", tok)


class Schema:
    def __init__(self, path=os.path.join(ROOT, "schema", "tensorone.graphqls")):
        with open(path, encoding="utf-8") as f:
            r = Reader(f.read())
        self.types, self.inputs, self.enums = {}, {}, {}
        while r.peek() is not None:
            r.strings()
            kind = r.next()
            if kind == "schema":
                while r.next() != "}":
                    pass
            elif kind == "scalar":
                r.next()
            elif kind == "enum":
                name = r.next()
                r.next("{")
                values = set()
                while not r.skip("}"):
                    r.strings()
                    values.add(r.next())
                self.enums[name] = values
            elif kind in ("type", "input"):
                self.read_fields(r, self.types if kind == "type" else self.inputs)
            else:
                raise Invalid(f"schema: {kind}")

    def read_fields(self, r, into):
        name = r.next()
        r.next("{")
        fields = {}
        while True:
            r.strings()
            if r.skip("}"):
                break
            field, args = r.next(), {}
            if r.skip("("):
                while not r.skip(")"):
                    r.strings()
                    arg = r.next()
                    r.next(":")
                    args[arg] = r.type()
                    if r.skip("="):
                        r.value()
            r.next(":")
            fields[field] = (r.type(), args)
            if r.skip("="):
                r.value()
        into[name] = fields

    def check(self, query, variables):
        """Raise Invalid unless the request fits; returns the name of the (only) root field."""
        r = Reader(query)
        kind = r.next()
        if kind not in ("query", "mutation"):
            raise Invalid(f"operation {kind}")
        if r.peek() not in ("(", "{"):
            r.next()
        declared = {}
        if r.skip("("):
            while not r.skip(")"):
                r.next("$")
                name = r.next()
                r.next(":")
                declared[name] = r.type()
        roots = self.selection(r, "Query" if kind == "query" else "Mutation", declared)
        if r.peek() is not None:
            raise Invalid("text behind the operation")
        for name, (type_, required, _) in declared.items():
            if required and name not in (variables or {}):
                raise Invalid(f"${name} is not given")
            if name in (variables or {}):
                self.check_value(variables[name], type_, f"${name}")
        for name in variables or {}:
            if name not in declared:
                raise Invalid(f"${name} is given and not declared")
        return roots

    def check_value(self, value, type_, where):
        if isinstance(value, list):
            for v in value:
                self.check_value(v, type_, where)
        elif isinstance(value, dict) and type_ in self.inputs:
            for key, v in value.items():
                if key not in self.inputs[type_]:
                    raise Invalid(f"{where}: {type_} has no {key}")
                self.check_value(v, self.inputs[type_][key][0][0], f"{where}.{key}")
            for key, ((_, required, _), _) in self.inputs[type_].items():
                if required and value.get(key) is None:
                    raise Invalid(f"{where}: {key} is missing")
        elif value is None:
            pass
        else:
            good = {"String": str, "Int": int, "Boolean": bool, "Float": (int, float),
                    "DateTime": str}.get(type_)
            if type_ in self.enums:
                if value not in self.enums[type_]:
                    raise Invalid(f"{where}: {value} is no {type_}")
            elif good is None or not isinstance(value, good) or (
                    isinstance(value, bool) and type_ != "Boolean"):
                raise Invalid(f"{where}: {value!r} is no {type_}")

    def selection(self, r, type_, declared):
        r.next("{")
        names = []
        while not r.skip("}"):
            field = r.next()
            if field not in self.types[type_]:
                raise Invalid(f"{type_} has no field {field}")
            (inner, _, _), args = self.types[type_][field]
            given = {}
            if r.skip("("):
                while not r.skip(")"):
                    arg = r.next()
                    r.next(":")
                    given[arg] = r.value()
            for arg, value in given.items():
                if arg not in args:
                    raise Invalid(f"{type_}.{field} has no argument {arg}")
                if value[0] == "var":
                    if value[1] not in declared:
                        raise Invalid(f"${value[1]} is not declared")
                    if declared[value[1]][0] != args[arg][0]:
                        raise Invalid(f"${value[1]} is a {declared[value[1]][0]}, not {args[arg][0]}")
            for arg, (_, required, _) in args.items():
                if required and arg not in given:
                    raise Invalid(f"{type_}.{field}: {arg} is missing")
            if inner in self.types:
                self.selection(r, inner, declared)
            elif r.peek() == "{":
                raise Invalid(f"{type_}.{field} is a {inner} and has no fields")
            names.append(field)
        return names
