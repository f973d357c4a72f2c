"""A call to the API server in a few milliseconds: `kubectl` takes a hundred times as long to start."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from dev.cluster import layout
from dev.cluster.layout import Layout


@dataclass(frozen=True)
class Api:
    """The API server of a cluster, as its administrator."""

    paths: Layout
    host: str = layout.NODE_ADDRESS
    port: int = layout.API_PORT
    timeout_seconds: float = 5.0

    def call(self, method: str, path: str, body: object = None, *, content: str = "application/json") -> Any:
        """The answer's JSON; `OSError` where there is none or it is an error."""
        context = ssl.create_default_context(cafile=str(self.paths.certificate("ca")))
        context.load_cert_chain(self.paths.certificate("admin"), self.paths.key("admin"))
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout_seconds, context=context)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content, "Accept": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer.status} {text[:300].decode(errors='replace')}")
        return json.loads(text)
