#!/usr/bin/python3
"""Make an OCI image layout from gzip'ed layer tars: ocipack.py OUTDIR CONFIG.json LAYER.tar.gz...

CONFIG.json is the "config" object of the image configuration (Cmd, Env, WorkingDir...).  The result
depends on its inputs alone: no times, no names of the machine that it was made on.
"""
import gzip
import hashlib
import json
import os
import platform
import shutil
import sys

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
CREATED = "2026-01-01T00:00:00Z"


def sha256_of(stream):
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return "sha256:" + digest.hexdigest()


class Layout:
    def __init__(self, path):
        self.path = path
        os.makedirs(os.path.join(path, "blobs/sha256"))

    def blob_path(self, digest):
        return os.path.join(self.path, "blobs/sha256", digest.removeprefix("sha256:"))

    def add_json(self, media_type, value):
        data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with open(self.blob_path(digest), "wb") as out:
            out.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_layer(self, path):
        """Returns the descriptor and the diff id."""
        with open(path, "rb") as stream:
            digest = sha256_of(stream)
        with gzip.open(path, "rb") as stream:
            diff_id = sha256_of(stream)
        shutil.copyfile(path, self.blob_path(digest))
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest,
                "size": os.path.getsize(path)}, diff_id

    def finish(self, manifest):
        with open(os.path.join(self.path, "oci-layout"), "w") as out:
            out.write('{"imageLayoutVersion":"1.0.0"}\n')
        with open(os.path.join(self.path, "index.json"), "w") as out:
            json.dump({"schemaVersion": 2, "manifests": [manifest]}, out, sort_keys=True)


def main(argv):
    if len(argv) < 4:
        sys.exit(__doc__)
    layout = Layout(argv[1])
    with open(argv[2]) as source:
        settings = json.load(source)
    layers = [layout.add_layer(path) for path in argv[3:]]
    machine = platform.machine()
    config = layout.add_json("application/vnd.oci.image.config.v1+json", {
        "architecture": ARCH.get(machine, machine), "os": "linux", "created": CREATED,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        "history": [{"created": CREATED, "created_by": "images/build"} for _ in layers]})
    manifest = layout.add_json("application/vnd.oci.image.manifest.v1+json", {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [descriptor for descriptor, _ in layers]})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    layout.finish(manifest)


if __name__ == "__main__":
    main(sys.argv)
