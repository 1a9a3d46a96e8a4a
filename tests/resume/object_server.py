"""An S3 server on the loopback interface for tests, whose answers can be made to fail."""

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

KEYS = {
    "AWS_ACCESS_KEY_ID": "tilepipe-tests",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-seen-anywhere",
    "AWS_REGION": "us-east-1",
}
"""Environment of a client, but for the address of the server."""

BUCKET = "pictures"


@dataclass
class Server:
    """A running server.

    Parameters
    ----------
    address : str
        ``http://127.0.0.1:PORT``.
    answer : callable
        ``answer(method, path, query)`` returns a status line and a body to answer with instead, or None.
    requests : list of tuple
        Method, path and query of every request.
    """

    address: str = ""
    answer: object = staticmethod(lambda method, path, query: None)
    requests: list = field(default_factory=list)

    @property
    def environment(self):
        """Environment of a client."""
        return KEYS | {"AWS_ENDPOINT_URL": self.address}

    def lists(self):
        """Return the number of listings so far."""
        return sum(method == "GET" and "list-type" in query for method, _, query in self.requests)


@contextmanager
def running_server():
    """Start a server with an empty bucket on a free port."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it prints every request
    backend, server = DomainDispatcherApplication(create_backend_app), Server()

    def application(environ, start_response):
        method, path, query = (environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
        server.requests.append((method, path, query))
        failure = server.answer(method, path, query)
        if failure is None:
            return backend(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, body = failure
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body.encode()]

    http = make_server("127.0.0.1", 0, application, threaded=True)
    server.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        _create_bucket(server)
        yield server
    finally:
        http.shutdown()
        thread.join()


def _create_bucket(server):
    import boto3

    boto3.client(
        "s3",
        endpoint_url=server.address,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_REGION"],
    ).create_bucket(Bucket=BUCKET)
