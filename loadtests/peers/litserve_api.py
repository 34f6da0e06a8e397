"""A LitServe server as its documentation shows one, with its defaults: a process for HTTP, another for the model.

    LIMBECK_PACKAGE=PACKAGE PYTHON -m loadtests.peers.litserve_api PORT

PYTHON is that of the environment which `litserve_environment` makes.
https://lightning.ai/docs/litserve/api-reference/litapi
"""

from __future__ import annotations

import sys
from typing import Any

import litserve

from loadtests.peers.answer import Model


class Classify(litserve.LitAPI):
    """Texts in JSON, or an image in a multipart form."""

    def setup(self, device: str) -> None:
        self.model = Model()

    # Without a type, as the documentation has it: LitServe would look for one that is named in the query string.
    def decode_request(self, request) -> bytes:  # type: ignore[no-untyped-def]
        content: bytes
        if self.model.task == "image":
            content = request["files"].file.read()
        else:
            content = request["inputs"][0].encode()
        return content

    def predict(self, x: bytes) -> dict[str, Any]:
        return self.model.answer(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Classify(api_path="/classify"), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
