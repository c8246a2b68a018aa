"""A model hub on this machine."""

import hashlib
import http.server
import json
import urllib.parse

COMMIT = "a" * 40
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the model hub as a download needs: the list of a commit's files, and each file, whole or in part."""

    files: dict[str, bytes]
    asked: list[str]
    breaks: int  # how many more times the connection closes halfway through the weights

    def do_GET(self, body=True):
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if self.path.startswith(f"/api/models/mine/tiny/revision/{COMMIT}"):
            listing = {"id": "mine/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return self.answer(json.dumps(listing).encode(), "application/json", "list", body)
        if self.path.startswith(f"/api/models/mine/tiny/tree/{COMMIT}"):
            tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            return self.answer(json.dumps(tree).encode(), "application/json", "tree", body)
        if self.path.startswith("/api/v1/"):
            return self.answer_as_modelscope(body)
        name = self.path.removeprefix(f"/mine/tiny/resolve/{COMMIT}/")
        if name not in self.files:
            return self.send_error(404)
        content = self.files[name]
        return self.answer(content, "application/octet-stream", hashlib.sha256(content).hexdigest(), body)

    def answer_as_modelscope(self, body):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if "FilePath" in asked:
            content = self.files[asked["FilePath"][0]]
            return self.answer(content, "application/octet-stream", hashlib.sha256(content).hexdigest(), body)
        files = [
            {"Path": name, "Name": name, "Type": "blob", "Size": len(c), "Sha256": hashlib.sha256(c).hexdigest()}
            for name, c in self.files.items()
        ]
        data = {"Files": files} if "/mine/tiny/repo/files" in self.path else {}
        listing = json.dumps({"Code": 200, "Success": True, "Data": data}).encode()
        return self.answer(listing, "application/json", "list", body)

    def do_HEAD(self):
        self.do_GET(body=False)

    def answer(self, content, kind, etag, body):
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body and self.breaks and content == self.files["model.safetensors"]:
            type(self).breaks -= 1
            self.wfile.write(content[start : (start + len(content)) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content[start:])

    def log_message(self, *args):
        pass
