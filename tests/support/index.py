"""A package index for pip (PEP 503) on the internet of the tests, which a proxy there leads to as well."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, PROXY_PORT = 8080, 3128
NAME = "pypi.example.org"  # see internet.NAMES
WHEEL = "hello_lib-1.0-py3-none-any.whl"


def wheel():
    """Return a wheel with the module hello_lib."""
    info = "hello_lib-1.0.dist-info"
    files = {
        "hello_lib.py": "WORD = 'hello from the index'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: hello-lib\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers requests of the form `GET /path`, and those to a proxy, `GET http://host/path`."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.endswith(f"/{WHEEL}"):
            kind, body = "application/zip", wheel()
        elif self.path.endswith("/simple/hello-lib/"):
            kind, body = "text/html", f'<a href="../../{WHEEL}">{WHEEL}</a>'.encode()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server:
    """Serves it at an address in a namespace; a context manager. `asked` is what was asked for."""

    def __init__(self, place, address, port):
        self.asked = []
        self._place, self._address = place, (address, port)

    def __enter__(self):
        self._server = self._place.inside(lambda: ThreadingHTTPServer(self._address, Handler))
        self._server.asked = self.asked
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
