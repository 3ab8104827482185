/* terminal.js - terminals in clusters, in a page of the API's own name (docs/edge.md, "Terminal").
 *
 * What always holds: the API key is in one variable here and in the Authorization header of requests to the
 * origin that this page came from; a WebSocket is opened with a ticket that is good for once.  What a cluster
 * says reaches nothing but xterm.js and textContent. */
"use strict";

(() => {
    const PROTOCOL = "tensorone.exec.v1";
    const STDIN = 0, STDOUT = 1, STDERR = 2, RESIZE = 3, EXIT = 5, ERROR = 6, SESSION = 8, TAKEN = 9;
    const NO_SESSION = 4404;          // close code: there is nothing to come back to
    const KEEP_S = 600;               // how long a session waits for us when the connection is lost
    const PIECE = 32768;              // of what is typed or pasted, in one message
    const AHEAD = 4096;               // of what is typed while the connection is lost, at most
    const RETRY_MS = [0, 250, 500, 1000, 2000, 5000];
    const SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi";

    const $ = (id) => document.getElementById(id);
    let key = "";
    let tabs = [];
    let current = null;
    let opened = 0;

    /* ---- the API ---- */

    class Refused extends Error {
        constructor(status, text) {
            super(text);
            this.status = status;
        }
    }

    async function ask(method, path, body) {
        const headers = { Authorization: "Bearer " + key };
        if (body)
            headers["Content-Type"] = "application/json";
        const answer = await fetch(path, {
            method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit",
            redirect: "error", referrerPolicy: "no-referrer",
        });
        let said = null;
        try {
            said = await answer.json();
        } catch (e) { /* the edge's own answer while the API is away */ }
        if (!answer.ok || !said || said.errors)
            throw new Refused(answer.status, said && said.errors && said.errors[0] ? said.errors[0].message
                : "the API does not answer (" + answer.status + ")");
        return said;
    }

    async function load() {
        const said = await ask("POST", "/graphql",
            { query: "{ myself { clusters { id name desiredStatus } } }" });
        const wanted = $("cluster").value || location.hash.slice(1);
        const list = said.data.myself.clusters.filter((c) => c.desiredStatus === "RUNNING");
        $("cluster").replaceChildren(...list.map((c) => {
            const option = document.createElement("option");
            option.value = c.id;
            option.dataset.name = c.name;
            option.textContent = c.name + " (" + c.id + ")";
            option.selected = c.id === wanted;
            return option;
        }));
        $("open").disabled = list.length === 0;
        return list.length;
    }

    /* ---- one terminal ---- */

    class Tab {
        constructor(cluster, title) {
            this.cluster = cluster;
            this.session = "";        // the server's name of it, to come back
            this.taken = 0;           // bytes of output that xterm.js has had
            this.queue = [];
            this.ahead = "";
            this.busy = false;
            this.tries = 0;
            this.over = false;
            this.decoder = new TextDecoder();
            this.encoder = new TextEncoder();
            this.next = new MessageChannel();     // timers that beget timers are slowed in a hidden page
            this.next.port1.onmessage = () => this.pump();

            this.screen = document.createElement("div");
            this.screen.className = "screen";
            $("screens").append(this.screen);
            this.term = new Terminal({
                fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace", fontSize: 14,
                cursorBlink: true, scrollback: 5000, screenReaderMode: true,
            });
            this.term.open(this.screen);
            this.term.on("data", (text) => this.type(text));
            this.handle(title);
        }

        handle(title) {
            const show = document.createElement("button"), close = document.createElement("button");
            this.tab = document.createElement("span");
            this.tab.className = "tab";
            show.type = close.type = "button";
            show.setAttribute("role", "tab");
            show.textContent = title;
            show.addEventListener("click", () => select(this));
            close.textContent = "\u00d7";
            close.setAttribute("aria-label", "Close " + title);
            close.addEventListener("click", () => this.close());
            this.show = show;
            this.tab.append(show, close);
            $("tabs").append(this.tab);
            this.state("connecting", "");
        }

        /* connecting, open, ended */
        state(name, text) {
            this.tab.dataset.state = name;
            this.text = text;
            if (this === current)
                $("says").textContent = text;
        }

        /* The screen's cells are as large as xterm.js has made them; how many fit? */
        fit() {
            const cells = this.screen.querySelector(".xterm-screen");
            if (!cells || !cells.clientWidth || !this.screen.clientWidth)
                return;
            const width = cells.clientWidth / this.term.cols, height = cells.clientHeight / this.term.rows;
            const cols = Math.max(2, Math.floor((this.screen.clientWidth - 8 - 16) / width));
            const rows = Math.max(1, Math.floor((this.screen.clientHeight - 8) / height));
            if (cols === this.term.cols && rows === this.term.rows)
                return;
            this.term.resize(cols, rows);
            this.size();
        }

        size() {
            const { rows, cols } = this.term;
            this.send(RESIZE, new Uint8Array([rows >> 8, rows & 255, cols >> 8, cols & 255]));
        }

        send(channel, bytes) {
            if (!this.ws || this.ws.readyState !== WebSocket.OPEN)
                return;
            const message = new Uint8Array(bytes.length + 1);
            message[0] = channel;
            message.set(bytes, 1);
            this.ws.send(message);
        }

        type(text) {
            if (this.tab.dataset.state !== "open") {
                if (!this.over && this.ahead.length + text.length <= AHEAD)
                    this.ahead += text;
                return;
            }
            const bytes = this.encoder.encode(text);
            for (let i = 0; i < bytes.length; i += PIECE)
                this.send(STDIN, bytes.subarray(i, i + PIECE));
        }

        address() {
            const q = new URLSearchParams({ acks: "1" });
            if (this.session) {
                q.set("session", this.session);
                q.set("from", String(this.taken));
            } else {
                q.set("tty", "1");
                q.set("keep", String(KEEP_S));
                q.set("rows", String(this.term.rows));
                q.set("cols", String(this.term.cols));
                q.append("env", "TERM=xterm-256color");
                for (const word of ["/bin/sh", "-c", SHELL])
                    q.append("cmd", word);
            }
            return location.origin.replace(/^http/, "ws") + "/v1/clusters/" + this.cluster + "/exec?" + q;
        }

        async connect() {
            let ticket;
            try {
                ticket = (await ask("POST", "/v1/clusters/" + this.cluster + "/exec/tickets")).ticket;
            } catch (e) {
                if ([401, 403, 404].includes(e.status))
                    this.end(e.message);
                else
                    this.again(e.message);
                return;
            }
            if (this.over)
                return;
            // what was on its way over the last connection and not shown yet comes once more
            this.queue = [];
            this.ws = new WebSocket(this.address(), [PROTOCOL, "tensorone.ticket." + ticket]);
            this.ws.binaryType = "arraybuffer";
            this.ws.onmessage = (event) => this.hear(new Uint8Array(event.data));
            this.ws.onclose = (event) => this.lost(event);
        }

        hear(message) {
            const body = message.subarray(1);
            if (message[0] === STDOUT || message[0] === STDERR) {
                this.queue.push([message[0], body]);
                this.pump();
            } else if (message[0] === SESSION) {
                this.begin(JSON.parse(new TextDecoder().decode(body)));
            } else if (message[0] === EXIT) {
                const { code, signal } = JSON.parse(new TextDecoder().decode(body));
                this.end(signal ? "ended by signal " + signal : "ended with code " + code);
            } else if (message[0] === ERROR) {
                this.why = new TextDecoder().decode(body);
            }
        }

        begin(said) {
            if (this.session && said.offset > this.taken)
                this.term.write("\r\n[" + (said.offset - this.taken) + " bytes of output are missing]\r\n");
            this.session = said.session;
            this.taken = said.offset;
            this.tries = 0;
            this.lostAt = 0;
            this.why = "";
            this.state("open", "");
            this.fit();
            this.size();
            const ahead = this.ahead;
            this.ahead = "";
            this.type(ahead);
        }

        /* All that has come, in one piece; more when xterm.js has been through it, so that a program that
         * writes without end waits for us instead of filling memory. */
        pump() {
            if (this.busy || !this.queue.length)
                return;
            const pieces = this.queue, ws = this.ws;
            this.queue = [];
            this.busy = true;
            let out = 0;
            for (const [channel, bytes] of pieces) {
                this.term.write(this.decoder.decode(bytes, { stream: true }));
                if (channel === STDOUT)
                    out += bytes.length;
            }
            this.taken += out;
            setTimeout(() => { // behind xterm.js's own
                this.busy = false;
                if (ws === this.ws && out)
                    this.send(TAKEN, new Uint8Array([out >>> 24, out >>> 16 & 255, out >>> 8 & 255, out & 255]));
                this.next.port2.postMessage(0);
            }, 0);
        }

        lost(event) {
            if (this.over)
                return;
            if (event.code === NO_SESSION || (event.code === 1011 && !this.session))
                this.end(this.why || "the session is gone");
            else
                this.again(this.why || "the connection was lost");
        }

        again(why) {
            if (this.over)
                return;
            this.lostAt = this.lostAt || Date.now();
            if (Date.now() - this.lostAt > KEEP_S * 1000) {
                this.end(why);
                return;
            }
            this.state("connecting", why + "; trying again");
            setTimeout(() => {
                if (!this.over)
                    this.connect();
            }, RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
        }

        end(text) {
            this.over = true;
            this.state("ended", text);
        }

        close() {
            this.over = true;
            if (this.ws)
                this.ws.close(1000); // the session is hung up, as when a window is closed
            this.term.dispose();
            this.tab.remove();
            this.screen.remove();
            tabs = tabs.filter((t) => t !== this);
            if (current === this)
                select(tabs[tabs.length - 1] || null);
        }
    }

    /* ---- the page ---- */

    function select(tab) {
        current = tab;
        for (const t of tabs) {
            t.screen.hidden = t !== tab;
            t.show.setAttribute("aria-selected", String(t === tab));
        }
        $("says").textContent = tab ? tab.text : "";
        if (!tab)
            return;
        tab.fit();
        tab.term.focus();
    }

    function open() {
        const cluster = $("cluster").value;
        if (!cluster)
            return;
        const tab = new Tab(cluster, ++opened + " " + $("cluster").selectedOptions[0].dataset.name);
        tabs.push(tab);
        select(tab);
        tab.connect();
    }

    function signOut() {
        for (const tab of [...tabs])
            tab.close();
        key = "";
        $("cluster").replaceChildren();
        $("work").hidden = true;
        $("sign-in").hidden = false;
        $("key").focus();
    }

    $("sign-in").addEventListener("submit", async (event) => {
        event.preventDefault();
        key = $("key").value.trim();
        $("key").value = "";
        $("enter").disabled = true;
        try {
            const n = await load();
            $("sign-in-says").textContent = "";
            $("sign-in").hidden = true;
            $("work").hidden = false;
            $("says").textContent = n ? "" : "No cluster is running.";
            $("open").focus();
        } catch (e) {
            key = "";
            $("sign-in-says").textContent = e.message;
        } finally {
            $("enter").disabled = false;
        }
    });
    $("open").addEventListener("click", open);
    $("sign-out").addEventListener("click", signOut);
    $("refresh").addEventListener("click", () => load().catch((e) => { $("says").textContent = e.message; }));
    window.addEventListener("resize", () => { if (current) current.fit(); });
})();
