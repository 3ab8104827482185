"""An operator's authority: certificates as an ACME client would leave them."""
import datetime
import hashlib
import pathlib
import ssl
import subprocess


def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, timeout=120, check=True).stdout


def fingerprint(pem):
    """SHA-256 of the first certificate in it."""
    first = pem[pem.index("-----BEGIN CERTIFICATE-----"):pem.index("-----END CERTIFICATE-----") + 25]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


class Issued:
    def __init__(self, chain, key):
        self.chain, self.key = chain, key

    @property
    def fingerprint(self):
        return fingerprint(self.chain)


class Authority:
    def __init__(self, folder, name="an operator's authority", pem=None, key=None):
        """@pem, @key: files of one that is there."""
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.pem, self.key = pathlib.Path(pem or self.dir / "root.pem"), pathlib.Path(key or self.dir / "root.key")
        self.made = 0
        if not pem:
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 3650, "-subj",
                    "/CN=" + name, "-keyout", self.key, "-out", self.pem)

    def issue(self, *names, days=90):
        """For these names, from now on or (days < 0) until so many days ago."""
        self.made += 1
        base = self.dir / str(self.made)
        csr, key, crt, ext = (base.with_suffix(s) for s in (".csr", ".key", ".crt", ".ext"))
        ext.write_text("subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n" %
                       ",".join("DNS:" + n for n in names))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test", "-keyout", key,
                "-out", csr)
        (self.dir / "index").write_text("")  # of what was issued; x509 alone cannot say when something ended
        conf = self.dir / "conf"
        conf.write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nnew_certs_dir=%s\ndefault_md=sha256\nrand_serial=yes\npolicy=p\n"
                        "[p]\ncommonName=supplied\n" % (self.dir, self.dir))
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
        start = min(end, end - datetime.timedelta(days=days)) - datetime.timedelta(days=1)
        openssl("ca", "-batch", "-notext", "-config", conf, "-cert", self.pem, "-keyfile", self.key, "-in", csr, "-out", crt, "-extfile", ext,
                "-startdate", start.strftime("%Y%m%d%H%M%SZ"), "-enddate", end.strftime("%Y%m%d%H%M%SZ"))
        return Issued(crt.read_text() + self.pem.read_text(), key.read_text())


class Live:
    """Certbot's folders: live/NAME has links to archive/NAME, and new ones take their place."""

    def __init__(self, folder, name="x"):
        self.archive, self.dir, self.n = folder / "archive" / name, folder / "live" / name, 0
        self.archive.mkdir(parents=True)
        self.dir.parent.mkdir(parents=True)

    def link(self, which, text, folder):
        file = self.archive / ("%s%d.pem" % (which, self.n))
        file.touch(mode=0o600)
        file.write_text(text)
        link = folder / (which + ".pem")
        link.unlink(missing_ok=True)
        link.symlink_to("../../archive/%s/%s" % (self.archive.name, file.name))

    def put_both(self, chain, key):
        """At one stroke: whoever looks finds the old ones or these."""
        self.n += 1
        folder, new = self.dir.with_name("%s.%d" % (self.dir.name, self.n)), self.dir.with_name("new")
        folder.mkdir()
        self.link("privkey", key, folder)
        self.link("fullchain", chain, folder)
        new.symlink_to(folder.name)
        new.rename(self.dir)

    def put(self, issued):
        self.put_both(issued.chain, issued.key)

    def put_by_parts(self, issued):
        """As certbot does: for a moment there is one of each."""
        self.n += 1
        self.link("privkey", issued.key, self.dir)
        self.link("fullchain", issued.chain, self.dir)
