"""The quick checks of tools/lint.py, one test each: layers, banned functions, sizes, scripts; and
that they find what they are for."""
import importlib.util
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
spec = importlib.util.spec_from_file_location("lint", os.path.join(ROOT, "tools", "lint.py"))
lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint)


@pytest.mark.parametrize("check", lint.QUICK, ids=lambda f: f.__name__[len("check_"):])
def test_clean(check):
    assert [f"{path}:{line}: {message}" for path, line, message in check()] == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree of the test's own in place of ours."""
    def write(**files):
        for name, text in files.items():
            path = tmp_path / "src" / name.replace("__", "/").replace("_c", ".c").replace("_h", ".h")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    monkeypatch.setattr(lint, "ROOT", str(tmp_path))
    monkeypatch.setattr(lint, "sources", lambda: sorted(
        os.path.relpath(os.path.join(base, f), tmp_path)
        for base, _, names in os.walk(tmp_path / "src") for f in names))
    return write


def found(check):
    return [message for _, _, message in check()]


def test_layers_are_found(tree):
    tree(base__a_c='#include "model/m.h"\n', engine__net__n_c='#include "engine/boot/b.h"\n',
         engine__boot__b_c='#include "engine/net/n.h"\n#include "base/a.h"\n',
         cli__x_c='#include "engine/instance.h"\n', fetch__f_c='/* #include "cli/x.h" */\n',
         engine__slice__s_c='#include "engine/disk/d.h"\n', novel__z_c="")
    assert sorted(found(lint.check_layers)) == [
        "base must not include model/m.h", "cli must not include engine/instance.h",
        "engine/net must not include engine/boot/b.h",
        "engine/slice must not include engine/disk/d.h",
        "folder novel is not in the table of tools/lint.py"]


def test_cycles_are_found(tree):
    tree(base__a_h='#include "base/b.h"\n', base__b_h='#include "base/a.h"\n',
         base__c_h='#include "base/a.h"\n')
    assert len(found(lint.check_cycles)) == 1


def test_banned_functions_are_found(tree):
    tree(base__a_c='x = strtok(a, b); strtok_r(a, b, c); s->system(x); // atoi(x)\n'
                   'puts("system(1)"); n = strtol(f(a), NULL, 10); n = strtol(a, &e, 10);\n')
    assert [m.split()[0] for m in found(lint.check_banned)] == ["strtok:", "strtol"]


def test_exit_and_opening_are_found(tree):
    tree(base__a_c="/* a.c - fine */\nexit(1);\n_exit(1);\n", base__main_c="exit(1);\n")
    assert found(lint.check_exits) == ["exit outside main.c"]
    assert len(found(lint.check_opening)) == 1


def test_long_functions_are_found(tree):
    tree(base__a_c="int f(void)\n{\n" + "        g();\n" * 130 + "        return 0;\n}\n",
         base__b_c="int f(void)\n{\n        return 0;\n}\n" + "\n" * 1000)
    messages = found(lint.check_size)
    assert len(messages) == 2 and "f: 134 lines" in messages
