#!/usr/bin/python3
"""Serve the starter's text model over HTTP on port $PORT (8000).

  GET  /                              what this is
  GET  /health                        {"status":"ok"}
  GET  /generate?prompt=TEXT&n=40     {"prompt","text","tokens"}; also temperature=0.8, seed=1
  POST /generate                      the same with a JSON object as body
"""
import json
import os
import random
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from train import tokens_of

HERE = os.path.dirname(os.path.abspath(__file__))
MAX_TOKENS = 1000
MAX_BODY = 65536
MAX_PROMPT = 8192


class BadRequest(Exception):
    pass


class Model:
    def __init__(self, path):
        with open(path, encoding="utf-8") as source:
            data = json.load(source)
        self.words = data["words"]
        self.trained_on = data["trained_on_words"]
        self.pairs = data["pairs"]
        self.singles = data["singles"]
        self.number = {}
        for i, word in enumerate(self.words):
            self.number.setdefault(word.lower(), i)
            self.number[word] = i

    def next_word(self, a, b, temperature, rng):
        flat = self.pairs.get(f"{a} {b}") or self.singles.get(str(b))
        if not flat:
            return rng.randrange(len(self.words))
        weights = [count ** (1.0 / temperature) for count in flat[1::2]]
        return rng.choices(flat[0::2], weights)[0]

    def generate(self, prompt, n, temperature, seed):
        rng = random.Random(seed)
        known = [self.number[t] for t in (w if w in self.number else w.lower() for w in tokens_of(prompt))
                 if t in self.number]
        stop = self.number.get(".", 0)
        a, b = ([stop, stop] + known)[-2:]
        text = []
        for _ in range(n):
            a, b = b, self.next_word(a, b, temperature, rng)
            word = self.words[b]
            text.append(word if word in ".,;:!?" or not (text or prompt) else " " + word)
        return "".join(text)


def number_of(values, name, default, low, high, kind):
    try:
        value = kind(values.get(name, default))
    except (TypeError, ValueError):
        raise BadRequest(f"{name}: must be a number") from None
    if not low <= value <= high:
        raise BadRequest(f"{name}: must be within {low}..{high}")
    return value


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "llm-starter"
    timeout = 30

    def answer(self, status, value):
        data = (json.dumps(value) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def generate(self, values):
        prompt = values.get("prompt", "")
        if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
            raise BadRequest(f"prompt: must be a text of at most {MAX_PROMPT} characters")
        n = number_of(values, "n", 40, 1, MAX_TOKENS, int)
        temperature = number_of(values, "temperature", 0.8, 0.05, 5.0, float)
        seed = values.get("seed")
        started = time.monotonic()
        text = self.server.model.generate(prompt, n, temperature, None if seed is None else str(seed))
        self.answer(200, {"prompt": prompt, "text": text, "tokens": n,
                          "ms": round((time.monotonic() - started) * 1000, 3)})

    def body(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise BadRequest("a Content-Length header is needed") from None
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            raise BadRequest(f"the body may have at most {MAX_BODY} bytes")
        try:
            values = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            raise BadRequest("the body is not JSON") from None
        if not isinstance(values, dict):
            raise BadRequest("the body must be a JSON object")
        return values

    def handle_one(self, values):
        path = urlsplit(self.path).path
        model = self.server.model
        if path == "/health":
            self.answer(200, {"status": "ok"})
        elif path == "/generate":
            self.generate(values)
        elif path == "/":
            self.answer(200, {"name": "tensorone/llm-starter", "model": "word model of order 3",
                              "words": len(model.words), "trained_on_words": model.trained_on,
                              "cluster": os.environ.get("TENSORONE_CLUSTER_ID", ""),
                              "try": "/generate?prompt=The+GPU&n=40"})
        else:
            self.answer(404, {"error": f"there is no {path}"})

    def do_GET(self):
        query = {k: v[-1] for k, v in parse_qs(urlsplit(self.path).query).items()}
        self.guarded(lambda: query)

    do_HEAD = do_GET

    def do_POST(self):
        self.guarded(self.body)

    def guarded(self, values):
        try:
            self.handle_one(values())
        except BadRequest as problem:
            self.answer(400, {"error": str(problem)})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, fmt, *args):
        print(f"{self.address_string()} {fmt % args}", flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    port = int(os.environ.get("PORT", "8000"))
    server = Server(("0.0.0.0", port), Handler)
    server.model = Model(os.path.join(HERE, "model.json"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"llm-starter: {len(server.model.words)} words, serving on 0.0.0.0:{port}", flush=True)
    server.serve_forever(poll_interval=0.5)
    server.server_close()
    print("llm-starter: stopped", flush=True)


if __name__ == "__main__":
    sys.exit(main())
