"""The clients of event streams for Python: each reads the stream at a URL up to the message "end"."""
import asyncio
import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp_sse_client.client
import httpx
import httpx_sse
import requests
import sseclient

END = "end"
# Two packages have the same name; a module is hidden by a package.
place = Path(sseclient.__file__).parent.parent / "sseclient.py"
spec = importlib.util.spec_from_file_location("sseclient_module", place)
sseclient_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sseclient_module)


def by_sseclient(url):
    for event in sseclient_module.SSEClient(url):
        yield event.data, event.id


def by_sseclient_py(url):
    response = requests.get(url, stream=True, headers={"Accept": "text/event-stream"}, timeout=60)
    for event in sseclient.SSEClient(response).events():
        yield event.data, event.id


def by_httpx_sse(url):
    with httpx.Client(timeout=60) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            yield event.data, event.id


def by_aiohttp(url):
    async def read():
        async with aiohttp_sse_client.client.EventSource(url) as source:
            heard = []
            async for event in source:
                heard.append((event.data, event.last_event_id))
                if event.data == END:
                    return heard

    return asyncio.run(read())


def by_requests(url):
    """No client: the lines of requests, with the JSON of a poll in each."""
    response = requests.get(url + "&stream=json", stream=True, timeout=60)
    for line in response.iter_lines(decode_unicode=True):
        if line.startswith("data: "):
            answer = json.loads(line[len("data: "):])
            for message in answer.get("m", {}).get("story", []):
                yield message["data"], None


CLIENTS = {
    "sseclient": by_sseclient,
    "sseclient-py": by_sseclient_py,
    "httpx-sse": by_httpx_sse,
    "aiohttp-sse-client": by_aiohttp,
    "requests": by_requests,
}


def tell(name):
    heard, error = [], None
    try:
        for data, last in CLIENTS[name](sys.argv[1]):
            heard.append((data, last))
            if data == END:
                break
    except Exception as fault:
        error = repr(fault)
    return {"client": name, "heard": heard, "error": error}


with ThreadPoolExecutor() as threads:
    print(json.dumps(list(threads.map(tell, CLIENTS))))
