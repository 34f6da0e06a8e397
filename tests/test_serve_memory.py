from __future__ import annotations

import io

import httpx
import psutil
from helpers import Served
from PIL import Image


def test_a_worker_gives_the_memory_of_large_images_back(served: Served) -> None:
    file = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(file, "WEBP", lossless=True)  # 1 kB, which becomes 75 MB, and copies of them
    server = psutil.Process(served.pid)

    def memory_mb() -> float:
        return sum(process.memory_info().rss for process in (server, *server.children(recursive=True))) / 2**20

    before = memory_mb()
    for _ in range(8):
        response = httpx.post(
            f"{served.url}/classify", content=file.getvalue(), headers={"Content-Type": "image/webp"}, timeout=60
        )
        assert response.status_code == 200
    assert memory_mb() < before + 50  # without serve.memory it was 105 MB more
