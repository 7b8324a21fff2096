"""aiocometd of PyPI, which does what it is told: each line of the input is a command in JSON."""
import asyncio
import json
import sys

from aiocometd_ng import Client, ConnectionType


def say(**message):
    print(json.dumps(message), flush=True)


async def hear(client):
    async for message in client:
        say(channel=message["channel"], data=message["data"])


async def obey(client):
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *arguments = json.loads(line)
        await getattr(client, name)(*arguments)
        say()


async def main():
    async with Client(sys.argv[1], ConnectionType.LONG_POLLING) as client:
        say(session=client._transport.client_id)
        listener = asyncio.create_task(hear(client))
        await obey(client)
        listener.cancel()


asyncio.run(main())
